// SPDX-License-Identifier: GPL-2.0

//! Everything that shares state with the scanner.

mod administrator;
mod kernel;
mod process;
mod tenants;

pub use administrator::{reloading, tuning, unmerging};
pub use kernel::{migrating, offlining, reading_direct, reclaiming};
pub use process::{advising_all, collapsing, exiting, unadvising, unmapping, writing};
pub use tenants::{moving, sorting};
