// SPDX-License-Identifier: GPL-2.0

//! The windows of races: moments between two steps in which others may change what the first step
//! has found.
//!
//! Most are a few instructions long, so that a test would hardly ever hit one. A kernel that is
//! built for the injection of faults can hold them open: see `race_delay.rs`.

#![deny(unsafe_code)]

/// The event that has just happened, and the code that the moment belongs to.
#[derive(Clone, Copy)]
pub(crate) enum RaceWindow {
    /// A batch of candidates is gathered, and the mmap lock dropped: exit, munmap, writes.
    Gathered,
    /// A candidate was hashed: writes.
    Hashed,
    /// A page of the same content was found: writes, and all that unmaps either page.
    Found,
    /// A mapping is in the list of a KSM page that its entry does not map yet: reverse walks.
    Listed,
    /// A page table entry is empty: page faults, get_user_pages().
    Emptied,
    /// Two pages are equal under the page-table lock: who still can write one of them.
    Compared,
    /// A page is write-protected, and no KSM page yet: faults, O_DIRECT.
    Protected,
    /// A page is a KSM page, and in no tree: reclaim, migration, exit.
    Promoted,
    /// Nobody has joined a new KSM page: the same.
    Refused,
    /// A folio points to a node that has no reference to it: reclaim, migration.
    Peeped,
    /// A node's folio is referenced, and not locked: the same.
    Referenced,
    /// The scan has nothing of an address space any more: exit.
    Released,
    /// An address space is not registered any more, and its flag still set: advice.
    Unregistered,
    /// Merged pages are found, and not yet unmerged: all that breaks or moves them.
    Unmerging,
    /// Merged pages are copied, and the entries still map them: the same.
    Copied,
    /// A reverse walk goes from one mapping to the next: unmerging, munmap, fork.
    Walking,
    /// A node names the new place of its folio, and the old folio still points to it: the scan.
    Migrating,
}

impl RaceWindow {
    /// How many there are.
    #[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
    pub(crate) const COUNT: usize = Self::Migrating as usize + 1;
}
