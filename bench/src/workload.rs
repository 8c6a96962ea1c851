// SPDX-License-Identifier: GPL-2.0

//! What a workload is, and how large it is to be.

use anyhow::Result;

use crate::report::Measures;

/// One thing to be measured.
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    pub run: fn(&Plan) -> Result<Measures>,
}

impl Workload {
    pub const fn new(
        name: &'static str,
        what: &'static str,
        run: fn(&Plan) -> Result<Measures>,
    ) -> Self {
        Self { name, what, run }
    }
}

/// How much to do.
pub struct Plan {
    /// Pages to be offered to KSM, in all.
    pub pages: usize,
    /// How often a scan is repeated.
    pub scans: usize,
    /// How often that is repeated which happens once, such as merging.
    pub rounds: usize,
}
