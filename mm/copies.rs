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
//! A KSM page does not change as long as somebody has a reference to it (see [`crate::mm::share`]),
//! whatever becomes of its mappings: it is given to its last owner only if nobody has one, and one
//! that lost its node is copied when it comes back from swap. So an entry that is what it was when the
//! reference was taken maps what was copied.

use crate::{
    mm::{
        folio::PinnedPage,
        notifier::with_range_invalidated,
        page_table::{
            Entries,
            MergedEntry,
            PageTable, //
        },
        pte::Pte,
        vma::LockedVma, //
    },
    window::{
        self,
        Window, //
    }, //
};
use core::{
    mem,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    page::PAGE_SIZE, //
};

/// Up to this many addresses are found by one walk, and replaced together where they are neighbours:
/// enough for that to be worth it, and few enough for the stack and for memory that is short.
const BATCH: usize = 32;

/// Addresses that map what KSM has put there, in their order.
pub(crate) struct Batch {
    merged: [Merged; BATCH],
    len: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            merged: [const { Merged::NONE }; BATCH],
            len: 0,
        }
    }

    /// Notes one more address; returns whether there is room for another.
    pub(crate) fn push(&mut self, merged: Merged) -> bool {
        self.merged[self.len] = merged;
        self.len += 1;
        self.len < BATCH
    }

    /// The first address, if there is any.
    pub(crate) fn first(&self) -> Option<usize> {
        Some(self.merged[..self.len].first()?.address)
    }

    /// Forgets all addresses; returns those that need a page fault.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = usize> + '_ {
        let len = mem::take(&mut self.len);
        let left = self.merged[..len].iter();
        left.filter(|merged| matches!(merged.way, Way::Fault))
            .map(|merged| merged.address)
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
    Copied(Shared, PinnedPage),
    /// The entry is empty under its lock, and was one of the KSM page.
    Emptied(Shared, PinnedPage),
    /// The entry maps the copy. The KSM page lost a mapping, whose reference is to be given up.
    Replaced(PinnedPage),
    /// There is nothing more to be done, or to be found by the next walk.
    Settled,
}

/// A KSM page, and the entry that mapped it when the reference was taken.
struct Shared {
    entry: Pte,
    page: PinnedPage,
}

impl Merged {
    const NONE: Self = Self {
        address: 0,
        way: Way::Settled,
    };

    /// The address of an entry that a walk has come to.
    pub(crate) fn found(found: &MergedEntry<'_>) -> Self {
        let entry = found.get();
        // Whether an entry that lets nobody in is a hint of NUMA balancing or userfaultfd's is for
        // the fault to say.
        let way = match found.page().filter(|_| !entry.is_protnone()) {
            Some(page) => Way::Copy(Shared {
                entry,
                page: page.hold(),
            }),
            None => Way::Fault,
        };
        Self {
            address: found.address(),
            way,
        }
    }

    /// Makes the copy; without memory, or if the hardware has lost the page, that is left to the
    /// fault.
    fn make_copy(&mut self, vma: LockedVma<'_>) {
        if let Way::Copy(shared) = mem::replace(&mut self.way, Way::Fault) {
            if let Some(copy) = copy_of(vma, self.address, &shared.page) {
                self.way = Way::Copied(shared, copy);
            }
        }
    }

    fn has_copy(&self) -> bool {
        matches!(self.way, Way::Copied(..))
    }

    /// Empties the entry, if there is a copy and the entry is what it was; returns whether.
    ///
    /// # Safety
    ///
    /// The entry must be one of `entries`, and [`Merged::fill`] be called before their lock is given
    /// up, after a flush of TLBs.
    unsafe fn empty(&mut self, entries: &mut Entries<'_>) -> bool {
        let Way::Copied(shared, copy) = mem::replace(&mut self.way, Way::Settled) else {
            return false;
        };
        if !entries.get(self.address).is(shared.entry) {
            return false;
        }
        // SAFETY: The caller flushes, and has the entry filled.
        unsafe { entries.clear(self.address) };
        self.way = Way::Emptied(shared, copy);
        true
    }

    /// Has the entry map the copy, if it was emptied for that.
    fn fill(&mut self, vma: LockedVma<'_>, entries: &mut Entries<'_>) {
        let Way::Emptied(shared, copy) = mem::replace(&mut self.way, Way::Settled) else {
            return;
        };
        let vma = vma.as_raw();
        let page = copy.as_raw();
        let (old, new) = (shared.page.folio().as_raw(), copy.into_folio());
        // SAFETY: The entry was emptied and flushed, and its lock is held. The copy is new; its
        // reference goes to the entry, as does the reverse mapping that it gets. The mapping that
        // the old page loses was that of the entry.
        unsafe {
            bindings::ksm_folio_add_new(new, vma, self.address);
            let entry = Pte(bindings::ksm_mk_pte(page, vma, shared.entry.0));
            entries.set(self.address, entry);
            bindings::ksm_folio_remove_rmap(old, vma);
        }
        self.way = Way::Replaced(shared.page);
    }

    /// Gives up the reference that the mapping had, if the page was replaced; returns whether.
    fn settle(&mut self) -> bool {
        let Way::Replaced(page) = mem::replace(&mut self.way, Way::Settled) else {
            return false;
        };
        // SAFETY: The page table entry had a reference, and does not map the page any more.
        unsafe { bindings::ksm_folio_put_mapping(page.folio().as_raw()) };
        true
    }
}

/// A copy of `page`, which `address` of `vma` maps.
fn copy_of(vma: LockedVma<'_>, address: usize, page: &PinnedPage) -> Option<PinnedPage> {
    if page.is_poisoned() {
        return None;
    }
    // SAFETY: The vma is alive, and any address will do.
    let folio = NonNull::new(unsafe { bindings::ksm_alloc_anon_folio(vma.as_raw(), address) })?;
    // SAFETY: The folio is new, of one page, and its reference is passed on.
    let copy = unsafe { PinnedPage::from_raw(folio.cast()) };
    // SAFETY: Both pages are alive. Nobody else knows the new one, and the other does not change.
    let is_whole =
        unsafe { bindings::ksm_fill_copy(folio.as_ptr(), page.as_raw(), vma.as_raw(), address) };
    is_whole.then_some(copy)
}

/// Gives copies to those addresses of `batch` for which that can be done here; sleeps.
pub(crate) fn replace_all(vma: LockedVma<'_>, batch: &mut Batch) {
    let merged = &mut batch.merged[..batch.len];
    for one in merged.iter_mut() {
        one.make_copy(vma);
    }
    window::pause(Window::Copied);
    for run in merged.chunk_by_mut(are_replaced_together) {
        if run[0].has_copy() {
            replace_run(vma, run);
        }
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
                replace_in_table(vma, &mut entries, part);
            }
        }
    });
    let replaced = run.iter_mut().filter_map(|one| one.settle().then_some(()));
    // SAFETY: The function only counts.
    unsafe { bindings::ksm_count_copies(replaced.count() as _) };
}

/// As [`replace_run`], for the addresses that `entries` is for.
fn replace_in_table(vma: LockedVma<'_>, entries: &mut Entries<'_>, part: &mut [Merged]) {
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
        one.fill(vma, entries);
    }
}
