// SPDX-License-Identifier: GPL-2.0

//! Tunables: numbers that an administrator sets, and that are read without a lock.

#![deny(unsafe_code)]

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// Pages to scan at a time, unless somebody says otherwise.
pub(crate) const DEFAULT_PAGES_TO_SCAN: usize = 100;

/// Mappings that one KSM page may have, unless somebody says otherwise.
pub(crate) const DEFAULT_MAX_PAGE_SHARING: usize = 256;

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
            max_page_sharing: Tunable::new(DEFAULT_MAX_PAGE_SHARING),
            chains_prune_millisecs: Tunable::new(2000),
            #[cfg(CONFIG_NUMA)]
            merge_across_nodes: Tunable::new(1),
            use_zero_pages: Tunable::new(0),
            smart_scan: Tunable::new(1),
            advisor: Advisor::new(),
        }
    }
}

/// What the advisor goes by.
pub(crate) struct Advisor {
    /// Whether it is asked at all.
    pub(crate) enabled: Tunable,
    /// Percent of a CPU that a scan may take.
    pub(crate) max_cpu: Tunable,
    /// Pages to scan at a time, to begin with.
    pub(crate) min_pages_to_scan: Tunable,
    /// Pages to scan at a time, at most.
    pub(crate) max_pages_to_scan: Tunable,
    /// Seconds that a full scan is to take.
    pub(crate) target_scan_time: Tunable,
}

impl Advisor {
    pub(crate) fn new() -> Self {
        Self {
            enabled: Tunable::new(0),
            max_cpu: Tunable::new(70),
            min_pages_to_scan: Tunable::new(500),
            max_pages_to_scan: Tunable::new(30000),
            target_scan_time: Tunable::new(200),
        }
    }
}
