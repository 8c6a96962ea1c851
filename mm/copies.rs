// SPDX-License-Identifier: GPL-2.0

//! Giving addresses copies of the KSM pages that they map, many at once.
//!
//! A page fault ([`crate::mm::unshare`]) would do for each of them; but neighbours that are replaced
//! together take one lock, one flush of TLBs and one notice to secondary MMUs. What is not the usual
//! case is left to the fault.

use crate::{
    mm::{
        folio::PinnedPage,
        notifier::with_range_invalidated,
        page_table::{
            Entries,
            PageTable, //
        },
        pte::Pte, //
    },
    window::{
        self,
        Window, //
    }, //
};
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    mm::virt::VmaRef,
    page::PAGE_SIZE,
    prelude::*, //
};

/// An address that maps what KSM has put there.
pub(crate) struct Merged {
    address: usize,
    way: Way,
}

/// How the address gets a page of its own.
enum Way {
    Fault,
    Copy(Shared),
    /// It has one. The KSM page lost a mapping, whose reference is still to be given up.
    Replaced(PinnedPage),
}

/// # Invariants
///
/// `page` was a KSM page when `entry` mapped it, and `copy` is a new folio that nobody else knows,
/// with the content of `page`.
struct Shared {
    entry: Pte,
    page: PinnedPage,
    copy: Option<PinnedPage>,
}

impl Merged {
    /// What `entries` has just found.
    pub(crate) fn found(
        entries: &Entries<'_>,
        address: usize,
        page: Option<NonNull<bindings::page>>,
    ) -> Self {
        let entry = entries.found();
        let way = match page.filter(|_| !entry.is_guarded()) {
            // INVARIANT: There is no copy.
            Some(page) => Way::Copy(Shared {
                entry,
                page: entries.hold(page),
                copy: None,
            }),
            None => Way::Fault,
        };
        Self { address, way }
    }

    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// Whether the address has got a page of its own.
    pub(crate) fn is_replaced(&self) -> bool {
        matches!(self.way, Way::Replaced(_))
    }

    /// Makes the copy; none if the hardware has lost the page's content.
    fn make_copy(&mut self, vma: &VmaRef) -> Result {
        let Way::Copy(shared) = &mut self.way else {
            return Ok(());
        };
        // SAFETY: The mmap lock is held by the invariant of `VmaRef`; the address lies in the vma.
        let folio = unsafe { bindings::ksm_alloc_anon_folio(vma.as_ptr(), self.address) };
        let folio = NonNull::new(folio).ok_or(ENOMEM)?;
        // SAFETY: The folio is new, of one page, and its reference is passed on.
        let copy = unsafe { PinnedPage::from_raw(folio.cast()) };
        let page = shared.page.as_raw();
        // SAFETY: Both pages are alive, and nobody else knows the new one. By the invariants of
        // `share.rs` the other does not change.
        let is_whole =
            unsafe { bindings::ksm_fill_copy(folio.as_ptr(), page, vma.as_ptr(), self.address) };
        // INVARIANT: See above.
        shared.copy = is_whole.then_some(copy);
        Ok(())
    }

    fn has_copy(&self) -> bool {
        matches!(&self.way, Way::Copy(shared) if shared.copy.is_some())
    }

    /// Empties the entry, or forgets the copy if it is not what it was.
    fn clear(&mut self, entries: &mut Entries<'_>) {
        let Way::Copy(shared) = &mut self.way else {
            return;
        };
        let is_same = entries
            .get(self.address)
            .is_some_and(|entry| entry.is(shared.entry));
        // The reference has kept the page from being another. It may have been given up by KSM and
        // written, but is no KSM page then.
        if is_same && shared.copy.is_some() && shared.page.folio().is_ksm() {
            // SAFETY: The entry is known. Who calls this flushes the TLB after it.
            unsafe { entries.clear(self.address) };
        } else {
            shared.copy = None;
        }
    }

    /// Has the entry map the copy, if it was emptied for that.
    fn replace(&mut self, vma: &VmaRef, entries: &mut Entries<'_>) {
        let way = core::mem::replace(&mut self.way, Way::Fault);
        let (entry, page, copy) = match way {
            Way::Copy(Shared {
                entry,
                page,
                copy: Some(copy),
            }) => (entry, page, copy),
            _ => return,
        };
        let (raw, new) = (vma.as_ptr(), copy.as_raw());
        let (old, copy) = (page.folio().as_raw(), copy.into_folio());
        // SAFETY: The entry was emptied and flushed, and its lock is held. The copy is new; its
        // reference goes to the entry, as does the reverse mapping that it gets. The mapping that
        // the old page loses was that of the entry.
        unsafe {
            bindings::ksm_folio_add_new(copy, raw, self.address);
            entries.set(self.address, Pte(bindings::ksm_mk_pte(new, raw, entry.0)));
            bindings::ksm_folio_remove_rmap(old, raw);
        }
        self.way = Way::Replaced(page);
    }
}

/// Gives copies to those of the addresses `merged`, which are in their order, for which that can be
/// done here; sleeps.
///
/// # Errors
///
/// `ENOMEM` without memory for all copies; some may have been made.
pub(crate) fn replace_all(vma: &VmaRef, merged: &mut [Merged]) -> Result {
    let result = merged.iter_mut().try_for_each(|one| one.make_copy(vma));
    window::pause(Window::Copied);
    for run in merged.chunk_by_mut(|one, next| one.address + PAGE_SIZE == next.address) {
        if run.iter().any(Merged::has_copy) {
            replace_run(vma, run);
        }
    }
    result
}

/// As [`replace_all`], for addresses side by side whose copies are made.
fn replace_run(vma: &VmaRef, run: &mut [Merged]) {
    let start = run[0].address;
    let range = start..start + run.len() * PAGE_SIZE;
    with_range_invalidated(vma, range.clone(), || {
        for table in PageTable::all_in(vma, range) {
            let Range { start: first, end } = table.range();
            let part = &mut run[(first - start) / PAGE_SIZE..(end - start) / PAGE_SIZE];
            if let Some(mut entries) = table.lock() {
                replace_in_table(vma, &mut entries, part, first..end);
            }
        }
    });
    let mut replaced = 0;
    for one in run {
        if let Way::Replaced(page) = &one.way {
            give_up_mapping(page);
            replaced += 1;
        }
    }
    // SAFETY: The function only counts.
    unsafe { bindings::ksm_count_copies(replaced) };
}

/// As [`replace_run`], for addresses of one page table.
fn replace_in_table(
    vma: &VmaRef,
    entries: &mut Entries<'_>,
    part: &mut [Merged],
    range: Range<usize>,
) {
    for one in part.iter_mut() {
        one.clear(entries);
    }
    // No CPU may use the old pages any more when the new ones can be written.
    entries.flush(range);
    for one in part {
        one.replace(vma, entries);
    }
}

/// Gives up the reference that a mapping of `page` had.
fn give_up_mapping(page: &PinnedPage) {
    let folio = page.folio();
    if !folio.is_mapped() {
        if let Some(_locked) = folio.try_lock() {
            // SAFETY: The folio is alive and locked.
            unsafe { bindings::ksm_folio_free_swap(folio.as_raw()) };
        }
    }
    // SAFETY: The page table entry had a reference, and does not map the page any more.
    unsafe { bindings::folio_put(folio.as_raw()) };
}
