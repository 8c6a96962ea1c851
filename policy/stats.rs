// SPDX-License-Identifier: GPL-2.0

//! Counters: numbers that the holder of the scan mutex changes, and that are read without a lock.

#![deny(unsafe_code)]

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A count that is changed under the scan mutex only.
pub(crate) struct Count(Atomic<usize>);

impl Count {
    fn new() -> Self {
        Self(Atomic::new(0))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Relaxed);
    }

    pub(crate) fn add(&self, change: usize) {
        self.set(self.get().wrapping_add(change));
    }

    pub(crate) fn sub(&self, change: usize) {
        self.set(self.get().wrapping_sub(change));
    }
}

/// What an administrator may read.
pub(crate) struct Stats {
    pub(crate) full_scans: Count,
    pub(crate) pages_scanned: Count,
    /// KSM pages in use.
    pub(crate) pages_shared: Count,
    /// Mappings of KSM pages beyond the first of each: pages that are saved.
    pub(crate) pages_sharing: Count,
    /// Pages that have not changed and found no equal.
    pub(crate) pages_unshared: Count,
    /// Pages passed over by the smart scan.
    pub(crate) pages_skipped: Count,
    /// Pages that were passed over because there was no record for them.
    pub(crate) pages_untracked: Count,
    pub(crate) rmap_items: Count,
    /// Contents that have more than one KSM page.
    pub(crate) stable_node_chains: Count,
    /// KSM pages of such contents.
    pub(crate) stable_node_dups: Count,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            full_scans: Count::new(),
            pages_scanned: Count::new(),
            pages_shared: Count::new(),
            pages_sharing: Count::new(),
            pages_unshared: Count::new(),
            pages_skipped: Count::new(),
            pages_untracked: Count::new(),
            rmap_items: Count::new(),
            stable_node_chains: Count::new(),
            stable_node_dups: Count::new(),
        }
    }

    /// Pages that are tracked, and in neither tree: they change too often.
    ///
    /// The counts are not read at one moment, so that this may be a little off.
    pub(crate) fn pages_volatile(&self) -> usize {
        self.rmap_items
            .get()
            .saturating_sub(self.pages_shared.get())
            .saturating_sub(self.pages_sharing.get())
            .saturating_sub(self.pages_unshared.get())
    }
}
