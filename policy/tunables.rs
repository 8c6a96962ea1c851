// SPDX-License-Identifier: GPL-2.0

//! Tunables: numbers that an administrator sets, and that are read without a lock.

#![deny(unsafe_code)]

use crate::mm::{
    domain::DomainRule,
    page_table::PAGES_OF_HUGE_PAGE, //
};
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

/// All settings of an administrator.
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
    /// Whether to pass over pages that nobody has touched since the last look.
    pub(crate) skip_untouched: Tunable,
    /// Pages of a huge page that must have equals for it to be split, scaled for smaller folios.
    pub(crate) huge_page_min_equal: Tunable,
    /// Whether pages of zeros are merged, with the kernel's zero page, and no others.
    pub(crate) only_zero_pages: Tunable,
    /// Whether a content's first merge copies it into a new page, which none of its owners has had.
    pub(crate) fresh_frames: Tunable,
    /// Which domains count: a [`DomainRule`].
    pub(crate) domains: Tunable,
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
            skip_untouched: Tunable::new(0),
            huge_page_min_equal: Tunable::new(1),
            only_zero_pages: Tunable::new(0),
            fresh_frames: Tunable::new(0),
            domains: Tunable::new(DomainRule::default() as usize),
            advisor: Advisor::new(),
        }
    }
}

impl Tunables {
    /// How many pages of a folio of so many must have equals for it to be split.
    pub(crate) fn least_equal(&self, pages: usize) -> usize {
        (self.huge_page_min_equal.get() * pages).div_ceil(PAGES_OF_HUGE_PAGE)
    }
}

/// Settings of the advisor.
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

#[kernel::macros::kunit_tests(ksm_rs_tunables)]
mod tests {
    use super::*;

    #[test]
    fn a_smaller_folio_needs_fewer_equal_pages() {
        let tunables = Tunables::new();
        for (min_equal, pages, least) in [
            (1, 1, 1),
            (1, 512, 1),
            (64, 512, 64),
            (64, 256, 32),
            (64, 16, 2),
            (65, 16, 3),
            (64, 4, 1),
            (512, 512, 512),
            (512, 4, 4),
        ] {
            tunables.huge_page_min_equal.set(min_equal);
            assert_eq!(tunables.least_equal(pages), least);
        }
    }
}
