// SPDX-License-Identifier: GPL-2.0

//! Tunables and counters: numbers that are read and written without a lock.

#![deny(unsafe_code)]

use kernel::sync::atomic::{
    Atomic,
    AtomicType,
    Relaxed, //
};

/// A number that is set by an administrator.
pub(crate) struct Tunable<T: AtomicType>(Atomic<T>);

impl<T: AtomicType> Tunable<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Atomic::new(value))
    }
}

impl Tunable<u32> {
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }

    pub(crate) fn set(&self, value: u32) {
        self.0.store(value, Relaxed);
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
    pub(crate) pages_to_scan: Tunable<u32>,
    /// Length of the pause, in milliseconds.
    pub(crate) sleep_millisecs: Tunable<u32>,
    /// Mappings that one KSM page may have.
    pub(crate) max_page_sharing: Tunable<u32>,
}

impl Tunables {
    pub(crate) fn new() -> Self {
        Self {
            pages_to_scan: Tunable::new(100),
            sleep_millisecs: Tunable::new(20),
            max_page_sharing: Tunable::new(256),
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
    pub(crate) rmap_items: Count,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            full_scans: Count::new(),
            pages_scanned: Count::new(),
            pages_shared: Count::new(),
            pages_sharing: Count::new(),
            pages_unshared: Count::new(),
            rmap_items: Count::new(),
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
