// SPDX-License-Identifier: GPL-2.0

//! One module for each command.

pub mod estimate;
pub mod generated;
pub mod set;
pub mod sharing;
pub mod top;
pub mod why;
