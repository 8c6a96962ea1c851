// SPDX-License-Identifier: GPL-2.0

//! The parts of mm that the data structures see.

pub(crate) mod ksm_page;
pub(crate) mod page;
