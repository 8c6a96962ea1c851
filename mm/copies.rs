// SPDX-License-Identifier: GPL-2.0

//! Giving addresses copies of the KSM pages that they map, many at once.
//!
//! A page fault ([`crate::mm::unshare`]) would do for each of them; but neighbours that are replaced
//! together take one lock, one flush of TLBs and one notice to secondary MMUs. What is not the usual
//! case is left to the fault.
//!
//! An address goes through these steps, of which [`replace_all`] does all but the first:
//!
//! ```text
//! found -> Copy -> Copied -> Emptied -> Replaced -> Settled
//! ```
//!
//! # Invariants
//!
//! A KSM page does not change as long as somebody has a reference to it (see [`crate::mm::ksm_page::share`]),
//! even if all of its mappings go: it is given to its last owner only if nobody has one, and one
//! that lost its node is copied when it comes back from swap. So an entry that is what it was when the
//! reference was taken maps what was copied.

use crate::{
    mm::{
        folio::PinnedFolio,
        new_folios::NewFolios,
        notifier::with_range_invalidated,
        page_table::{
            Entries,
            MergedEntry,
            PageTable, //
        },
        pte::Pte,
        vma::LockedVma, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use core::{
    mem,
    ops::Range, //
};
use kernel::{
    alloc::Flags,
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Up to this many addresses are found by one walk, and replaced together where they are neighbours:
/// enough for that to be worth it, and few enough for memory that is short, and for tasks that wait
/// for the lock of a page table.
const BATCH: usize = 64;

/// Addresses that map what KSM has put there, in their order.
pub(crate) struct Batch {
    merged: KVec<Merged>,
}

impl Batch {
    /// # Errors
    ///
    /// `ENOMEM` if there is no memory for the addresses.
    pub(crate) fn new(flags: Flags) -> Result<Self> {
        Ok(Self {
            merged: KVec::with_capacity(BATCH, flags)?,
        })
    }

    /// Notes one more address, for which there must be room; returns whether there is for another.
    pub(crate) fn push(&mut self, merged: Merged) -> bool {
        let pushed = self.merged.push_within_capacity(merged);
        debug_assert!(pushed.is_ok());
        self.merged.len() < BATCH
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.merged.is_empty()
    }

    /// Forgets all addresses; returns those that need a page fault.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = usize> + '_ {
        let left = self.merged.drain_all();
        left.filter_map(|merged| matches!(merged.way, Way::Fault).then_some(merged.address))
    }
}

/// An address that maps what KSM has put there.
pub(crate) struct Merged {
    address: usize,
    way: Way,
}

/// How the address gets a page of its own, and how far that is.
enum Way {
    Fault,
    Copy(Shared),
    /// There is a copy: a new folio that nobody else knows, with the content of the KSM page.
    Copied(Shared, PinnedFolio),
    /// The entry is empty under its lock, and was one of the KSM page.
    Emptied(Shared, PinnedFolio),
    /// The entry maps the copy. The KSM page lost a mapping, whose reference is to be given up.
    Replaced(PinnedFolio),
    /// The entry is not what it was: the next walk is to look at it again.
    Changed,
    /// The address has a page of its own.
    Settled,
}

/// A KSM page, and the entry that mapped it when the reference was taken.
struct Shared {
    entry: Pte,
    folio: PinnedFolio,
}

impl Merged {
    /// The address of an entry that a walk has come to.
    pub(crate) fn found(found: &MergedEntry<'_>) -> Self {
        let entry = found.get();
        // Whether an entry that lets nobody in is a hint of NUMA balancing or userfaultfd's is for
        // the fault to say.
        let way = match found.hold() {
            Some(folio) if !entry.is_protnone() => Way::Copy(Shared { entry, folio }),
            _ => Way::Fault,
        };
        Self {
            address: found.address(),
            way,
        }
    }

    fn wants_copy(&self) -> bool {
        matches!(self.way, Way::Copy(_))
    }

    /// Makes `new` the copy; without memory, or if the hardware has lost the page, that is left to the
    /// fault.
    fn make_copy(&mut self, vma: LockedVma<'_>, new: Option<PinnedFolio>) {
        if let Way::Copy(shared) = mem::replace(&mut self.way, Way::Fault) {
            if let Some(copy) = new.and_then(|new| shared.copy_to(new, vma, self.address)) {
                self.way = Way::Copied(shared, copy);
            }
        }
    }

    fn has_copy(&self) -> bool {
        matches!(self.way, Way::Copied(..))
    }

    fn is_settled(&self) -> bool {
        matches!(self.way, Way::Settled)
    }

    /// Empties the entry, if there is a copy and the entry is what it was; returns whether.
    ///
    /// # Safety
    ///
    /// The entry must be one of `entries`, and [`Merged::fill`] be called before their lock is given
    /// up, after a flush of TLBs.
    unsafe fn empty(&mut self, entries: &mut Entries<'_>) -> bool {
        let Way::Copied(shared, copy) = mem::replace(&mut self.way, Way::Changed) else {
            return false;
        };
        // SAFETY: The caller flushes, and has the entry filled.
        let is_empty = unsafe { entries.clear_if(self.address, shared.entry) };
        if is_empty {
            self.way = Way::Emptied(shared, copy);
        }
        is_empty
    }

    /// Has the entry map the copy, if it was emptied for that.
    fn fill(&mut self, entries: &mut Entries<'_>) {
        let Way::Emptied(shared, copy) = mem::replace(&mut self.way, Way::Changed) else {
            return;
        };
        // SAFETY: The entry was emptied and flushed, and its lock is held. The copy is new.
        unsafe { entries.map_copy(self.address, shared.entry, &shared.folio, copy) };
        self.way = Way::Replaced(shared.folio);
    }

    /// Gives up the references to the page, if it was replaced; returns whether.
    fn settle(&mut self) -> bool {
        let Way::Replaced(folio) = mem::replace(&mut self.way, Way::Changed) else {
            return false;
        };
        self.way = Way::Settled;
        let folio = folio.into_raw();
        // SAFETY: The page table entry had a reference, and does not map the folio any more; the
        // other one is this one. Its swap is not needed any more if no entry has it.
        unsafe {
            bindings::ksm_free_swap_cache(folio);
            bindings::folio_put_refs(folio, 2);
        }
        true
    }
}

impl Shared {
    /// The copy that `new`, which nobody else knows, becomes for `address` of `vma`.
    fn copy_to(&self, new: PinnedFolio, vma: LockedVma<'_>, address: usize) -> Option<PinnedFolio> {
        let (copy, folio) = (new.as_raw(), self.folio.as_raw());
        // SAFETY: The vma and both folios are alive. Nobody else knows the new one, and the other one
        // does not change.
        let is_made = unsafe { bindings::ksm_make_copy(copy, folio, vma.as_raw(), address) };
        is_made.then_some(new)
    }
}

/// Gives copies to those addresses of `batch` for which that can be done here; sleeps.
///
/// Returns the first address that may still map what KSM has put there; those that the walk came to
/// before it have pages of their own.
pub(crate) fn replace_all(vma: LockedVma<'_>, batch: &mut Batch) -> usize {
    let merged = batch.merged.as_mut_slice();
    make_copies(vma, merged);
    race_delay::pause(RaceWindow::Copied);
    for run in merged.chunk_by_mut(are_replaced_together) {
        if run[0].has_copy() {
            replace_run(vma, run);
        }
    }
    let left = merged.iter().find(|one| !one.is_settled());
    let end = merged.last().map_or(0, |last| last.address + PAGE_SIZE);
    left.map_or(end, |one| one.address)
}

fn make_copies(vma: LockedVma<'_>, merged: &mut [Merged]) {
    let mut wanted = merged.iter().filter(|one| one.wants_copy()).count();
    let mut folios = NewFolios::<BATCH>::new(vma);
    for one in merged.iter_mut().filter(|one| one.wants_copy()) {
        one.make_copy(vma, folios.take(one.address, wanted));
        wanted -= 1;
    }
}

fn are_replaced_together(one: &Merged, next: &Merged) -> bool {
    one.address + PAGE_SIZE == next.address && one.has_copy() && next.has_copy()
}

/// As [`replace_all`], for addresses side by side whose copies are made.
fn replace_run(vma: LockedVma<'_>, run: &mut [Merged]) {
    let start = run[0].address;
    let range = start..start + run.len() * PAGE_SIZE;
    with_range_invalidated(vma, range.clone(), || {
        for table in PageTable::all_in(vma, range) {
            let Range { start: first, end } = table.range();
            let part = &mut run[(first - start) / PAGE_SIZE..(end - start) / PAGE_SIZE];
            if let Some(mut entries) = table.lock() {
                replace_in_table(&mut entries, part);
            }
        }
    });
    let replaced = run.iter_mut().filter_map(|one| one.settle().then_some(()));
    // SAFETY: The function only counts.
    unsafe { bindings::ksm_count_copies(replaced.count() as _) };
}

/// As [`replace_run`], for the addresses that `entries` is for.
fn replace_in_table(entries: &mut Entries<'_>, part: &mut [Merged]) {
    let mut emptied: Option<Range<usize>> = None;
    for one in part.iter_mut() {
        // SAFETY: The entry is one of those; they are flushed and filled below.
        if unsafe { one.empty(entries) } {
            let start = emptied.map_or(one.address, |range| range.start);
            emptied = Some(start..one.address + PAGE_SIZE);
        }
    }
    // No CPU may use the old pages any more when the new ones can be written.
    if let Some(range) = emptied {
        entries.flush(range);
    }
    for one in part {
        one.fill(entries);
    }
}
