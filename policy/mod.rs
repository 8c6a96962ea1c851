// SPDX-License-Identifier: GPL-2.0

//! What the administrator sets and sees.

pub(crate) mod advisor;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod tunables;
