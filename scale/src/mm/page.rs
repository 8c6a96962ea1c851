// SPDX-License-Identifier: GPL-2.0

//! A page that is none.

/// Stands for a page of which a partition needs the NUMA node only.
pub(crate) struct Page;

impl Page {
    pub(crate) fn node(&self) -> i32 {
        0
    }
}
