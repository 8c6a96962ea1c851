// SPDX-License-Identifier: GPL-2.0

//! Settings and counters of the administrator.

pub(crate) mod advisor;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod tunables;
