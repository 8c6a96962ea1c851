// SPDX-License-Identifier: GPL-2.0

//! Tunables and counters: numbers that are read and written without a lock.

#![deny(unsafe_code)]

use crate::advisor::Advisor;
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// Pages to scan at a time, unless somebody says otherwise.
pub(crate) const DEFAULT_PAGES_TO_SCAN: usize = 100;

/// The largest value of what user space reads as an `unsigned int`.
pub(crate) const U32_MAX: usize = u32::MAX as usize;

/// A number that is set by an administrator.
pub(crate) struct Tunable(Atomic<usize>);

impl Tunable {
    pub(crate) fn new(value: usize) -> Self {
        Self(Atomic::new(value))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value, Relaxed);
    }

    /// Whether a switch is on.
    pub(crate) fn is_set(&self) -> bool {
        self.get() != 0
    }
}

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

/// What an administrator may set.
pub(crate) struct Tunables {
    /// Pages to scan before each pause.
    pub(crate) pages_to_scan: Tunable,
    /// Length of the pause, in milliseconds.
    pub(crate) sleep_millisecs: Tunable,
    /// Mappings that one KSM page may have.
    pub(crate) max_page_sharing: Tunable,
    /// Milliseconds between two searches of a chain for nodes whose page is gone.
    pub(crate) chains_prune_millisecs: Tunable,
    /// Whether pages of different NUMA nodes may be merged.
    #[cfg(CONFIG_NUMA)]
    pub(crate) merge_across_nodes: Tunable,
    /// Whether pages of zeros become the kernel's zero page.
    pub(crate) use_zero_pages: Tunable,
    /// Whether to pass over pages that have not found an equal for long.
    pub(crate) smart_scan: Tunable,
    pub(crate) advisor: Advisor,
}

impl Tunables {
    pub(crate) fn new() -> Self {
        Self {
            pages_to_scan: Tunable::new(DEFAULT_PAGES_TO_SCAN),
            sleep_millisecs: Tunable::new(20),
            max_page_sharing: Tunable::new(256),
            chains_prune_millisecs: Tunable::new(2000),
            #[cfg(CONFIG_NUMA)]
            merge_across_nodes: Tunable::new(1),
            use_zero_pages: Tunable::new(0),
            smart_scan: Tunable::new(1),
            advisor: Advisor::new(),
        }
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
