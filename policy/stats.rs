// SPDX-License-Identifier: GPL-2.0

//! Counters of the scan, which can be read without a lock.

#![deny(unsafe_code)]

use crate::records::counters::Count;

/// See the [module's description](self).
pub(crate) struct Stats {
    pub(crate) full_scans: Count,
    pub(crate) pages_scanned: Count,
    /// Pages passed over by the smart scan.
    pub(crate) pages_skipped: Count,
    /// Pages that were passed over because there was no record for them.
    pub(crate) pages_untracked: Count,
    /// Pages that were passed over as nobody had touched them.
    pub(crate) pages_untouched: Count,
}

impl Stats {
    pub(super) const fn new() -> Self {
        Self {
            full_scans: Count::new(),
            pages_scanned: Count::new(),
            pages_skipped: Count::new(),
            pages_untracked: Count::new(),
            pages_untouched: Count::new(),
        }
    }
}
