// SPDX-License-Identifier: GPL-2.0

//! How many records there are, for everybody to read without a lock.

#![deny(unsafe_code)]

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A count that the holder of the scan mutex changes.
pub(crate) struct Count(Atomic<usize>);

impl Count {
    pub(crate) const fn new() -> Self {
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

/// The counters that follow from [`Records`](super::Records), which alone changes them.
pub(crate) struct Counters {
    pub(super) pages_shared: Count,
    pub(super) pages_sharing: Count,
    pub(super) pages_unshared: Count,
    pub(super) rmap_items: Count,
    pub(super) chains: Count,
    pub(super) dups: Count,
}

impl Counters {
    pub(super) const fn new() -> Self {
        Self {
            pages_shared: Count::new(),
            pages_sharing: Count::new(),
            pages_unshared: Count::new(),
            rmap_items: Count::new(),
            chains: Count::new(),
            dups: Count::new(),
        }
    }

    /// KSM pages in use.
    pub(crate) fn pages_shared(&self) -> usize {
        self.pages_shared.get()
    }

    /// Mappings of KSM pages beyond the first of each: pages that are saved.
    pub(crate) fn pages_sharing(&self) -> usize {
        self.pages_sharing.get()
    }

    /// Pages that have not changed and found no equal.
    pub(crate) fn pages_unshared(&self) -> usize {
        self.pages_unshared.get()
    }

    /// Pages that are tracked.
    pub(crate) fn rmap_items(&self) -> usize {
        self.rmap_items.get()
    }

    /// Contents that have more than one KSM page.
    pub(crate) fn chains(&self) -> usize {
        self.chains.get()
    }

    /// KSM pages of such contents.
    pub(crate) fn dups(&self) -> usize {
        self.dups.get()
    }

    /// Pages that are tracked, and in neither tree: they change too often.
    ///
    /// The counts are not read at one moment, so that this may be a little off.
    pub(crate) fn pages_volatile(&self) -> usize {
        self.rmap_items()
            .saturating_sub(self.pages_shared())
            .saturating_sub(self.pages_sharing())
            .saturating_sub(self.pages_unshared())
    }
}
