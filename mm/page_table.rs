// SPDX-License-Identifier: GPL-2.0

//! Page tables, and what their entries map.
//!
//! C header: [`include/linux/pgtable.h`](srctree/include/linux/pgtable.h)

use crate::mm::{
    folio::{
        Folio,
        PinnedPage, //
    },
    pte::Pte,
    vma::LockedVma, //
};
use core::{
    iter,
    ops::Range,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    page::PAGE_SIZE,
    types::NotThreadSafe, //
};

/// A page table, or the huge page in its place.
///
/// # Invariants
///
/// `pmd` is the entry for the addresses of `range`, which lie in `vma`, among the page tables of
/// its mm. It stays one for as long as the mmap lock is held, whatever becomes of its value.
pub(crate) struct PageTable<'a> {
    vma: LockedVma<'a>,
    pmd: *mut bindings::pmd_t,
    range: Range<usize>,
}

impl<'a> PageTable<'a> {
    /// The page tables that there are for the part `range` of `vma`, in their order.
    pub(crate) fn all_in(vma: LockedVma<'a>, range: Range<usize>) -> impl Iterator<Item = Self> {
        let mut rest = range.start.max(vma.range().start)..range.end.min(vma.range().end);
        iter::from_fn(move || {
            let table = Self::first_in(vma, rest.clone())?;
            rest.start = table.range.end;
            Some(table)
        })
    }

    fn first_in(vma: LockedVma<'a>, mut range: Range<usize>) -> Option<Self> {
        // SAFETY: By its invariant the mmap lock of the vma is held, and the range lies in the vma.
        let pmd = unsafe { bindings::ksm_next_pmd(vma.mm_raw(), &mut range.start, &mut range.end) };
        // INVARIANT: The helper has found the entry, and what it maps. Tables of such entries are
        // not freed while the mmap lock is held.
        (!pmd.is_null()).then_some(Self { vma, pmd, range })
    }

    /// The addresses that the table has entries for, as far as they were asked for.
    pub(crate) fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The anonymous huge page that stands in place of the table.
    pub(crate) fn huge_page(&self) -> Option<HugePage> {
        // SAFETY: By the type invariant the entry is valid.
        let value = unsafe { bindings::pmdp_get_lockless(self.pmd) };
        // SAFETY: These functions look at the value only.
        if unsafe { !bindings::pmd_present(value) || !bindings::pmd_leaf(value) } {
            return None;
        }
        let vma = self.vma.as_raw();
        // SAFETY: By the type invariant the entry belongs to the vma.
        let page = unsafe { bindings::ksm_get_anon_page_pmd(vma, self.range.start, self.pmd) };
        // SAFETY: The helper that found the page took a reference, which it passed on.
        let first = unsafe { PinnedPage::from_raw(NonNull::new(page)?) };
        // INVARIANT: The huge page covers the whole entry.
        Some(HugePage {
            first,
            range: self.range.clone(),
        })
    }

    /// Takes the table's lock; `None` if there is no table any more, or a huge page.
    pub(crate) fn lock(&self) -> Option<Entries<'_>> {
        let mut lock = ptr::null_mut();
        let Range { start, end } = self.range;
        // SAFETY: By the type invariant the entry is valid, in the mm of the vma.
        let entry = unsafe {
            let mm = self.vma.mm_raw();
            bindings::ksm_pte_offset_map_lock(mm, self.pmd, start, &mut lock)
        };
        // INVARIANT: The table was just mapped and locked; `entry` is the one for `start`.
        (!entry.is_null()).then(|| Entries {
            vma: self.vma,
            first: entry,
            start,
            lock,
            next: entry,
            address: start,
            end,
            _nts: NotThreadSafe,
        })
    }
}

/// A huge page, or the part of one that lies in a range.
///
/// # Invariants
///
/// `first` is the page at the beginning of `range`; the folio goes on for all of it.
pub(crate) struct HugePage {
    first: PinnedPage,
    range: Range<usize>,
}

impl HugePage {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = usize> {
        self.range.clone().step_by(PAGE_SIZE)
    }

    /// The page at `address`, which is one of [`HugePage::addresses`].
    pub(crate) fn into_page_at(self, address: usize) -> PinnedPage {
        let distance = (address - self.range.start) / PAGE_SIZE;
        // SAFETY: By the type invariant the page is part of the folio.
        unsafe { self.first.into_neighbour(distance) }
    }
}

/// The entries of a page table, whose lock is held.
///
/// # Invariants
///
/// The table is mapped from `first` on, which is the entry of `start`, and this owns its lock,
/// `lock`. `next` is the entry of `address`, or the end of the table if that is `end`; `address` is
/// not above `end`.
pub(crate) struct Entries<'a> {
    vma: LockedVma<'a>,
    first: *mut bindings::pte_t,
    start: usize,
    lock: *mut bindings::spinlock_t,
    next: *mut bindings::pte_t,
    address: usize,
    end: usize,
    _nts: NotThreadSafe,
}

impl Entries<'_> {
    /// The next anonymous page, and its address.
    pub(crate) fn next_anonymous(&mut self) -> Option<(usize, NonNull<bindings::page>)> {
        let vma = self.vma.as_raw();
        // SAFETY: By the type invariant the entries from `next` on are mapped and locked.
        let page = unsafe {
            bindings::ksm_next_anon_page(vma, &mut self.next, &mut self.address, self.end)
        };
        Some((self.step()?, NonNull::new(page)?))
    }

    /// The next address whose page KSM has put there, and the KSM page, unless it is a page of
    /// zeros or just migrates.
    pub(crate) fn next_merged(&mut self) -> Option<(usize, Option<NonNull<bindings::page>>)> {
        let vma = self.vma.as_raw();
        // SAFETY: By the type invariant the entries from `next` on are mapped and locked.
        let folio =
            unsafe { bindings::ksm_next_merged(vma, &mut self.next, &mut self.address, self.end) };
        // A KSM folio has one page, which it begins with.
        Some((self.step()?, NonNull::new(folio.cast())))
    }

    /// Whether a fault at the entry that was found last would wait for userfaultfd.
    pub(crate) fn is_kept_out(&self) -> bool {
        // SAFETY: By the type invariant the table is mapped and locked. The entry is part of it:
        // `next` has gone past it.
        unsafe { bindings::ksm_is_kept_out(self.vma.as_raw(), self.next.wrapping_sub(1)) }
    }

    /// The entry that was found last.
    pub(crate) fn found(&self) -> Pte {
        // SAFETY: As in `is_kept_out`.
        Pte(unsafe { bindings::ptep_get(self.next.wrapping_sub(1)) })
    }

    /// The entry of `address`, which must be one that the table was locked for.
    pub(crate) fn get(&self, address: usize) -> Pte {
        // SAFETY: By the type invariant the table is mapped and locked.
        Pte(unsafe { bindings::ptep_get(self.entry(address)) })
    }

    /// Empties the entry of `address`, of which TLBs may still know.
    ///
    /// # Safety
    ///
    /// [`Entries::flush`] and [`Entries::set`] must follow before the lock is given up.
    pub(super) unsafe fn clear(&mut self, address: usize) {
        // SAFETY: By the type invariant the entry is mapped and locked, and of the vma.
        unsafe { bindings::ksm_ptep_clear(self.vma.as_raw(), address, self.entry(address)) };
    }

    /// Sees to it that no CPU uses what entries for `range` were before they were emptied.
    pub(super) fn flush(&mut self, range: Range<usize>) {
        // SAFETY: The vma is alive, and its mmap lock held.
        unsafe { bindings::ksm_flush_tlb(self.vma.as_raw(), range.start, range.end) };
    }

    /// Fills the entry of `address`, which is empty.
    ///
    /// # Safety
    ///
    /// As [`PteGuard::set`](crate::mm::pte::PteGuard::set).
    pub(super) unsafe fn set(&mut self, address: usize, pte: Pte) {
        let entry = self.entry(address);
        // SAFETY: By the type invariant the entry is mapped and locked; the caller vouches for what
        // it is to map.
        unsafe { bindings::set_pte_at(self.vma.mm_raw(), address, entry, pte.0) };
    }

    /// Where the entry of `address` is; panics if the table was not locked for it.
    fn entry(&self, address: usize) -> *mut bindings::pte_t {
        assert!((self.start..self.end).contains(&address));
        self.first.wrapping_add((address - self.start) / PAGE_SIZE)
    }

    /// The folio of `page`, which one of the entries maps.
    pub(crate) fn folio_of(&self, page: NonNull<bindings::page>) -> &Folio {
        // SAFETY: A page that an entry maps is not freed while the lock is held.
        unsafe { Folio::from_raw(bindings::page_folio(page.as_ptr())) }
    }

    /// Takes a reference to `page`, which one of the entries maps.
    pub(crate) fn hold(&self, page: NonNull<bindings::page>) -> PinnedPage {
        // SAFETY: The page is alive, see above; the reference goes to the `PinnedPage`.
        unsafe {
            bindings::folio_get(self.folio_of(page).as_raw());
            PinnedPage::from_raw(page)
        }
    }

    /// Goes past the entry that was found; returns its address.
    fn step(&mut self) -> Option<usize> {
        let address = self.address;
        if address == self.end {
            return None;
        }
        // INVARIANT: Both move by one entry.
        self.address += PAGE_SIZE;
        self.next = self.next.wrapping_add(1);
        Some(address)
    }
}

impl Drop for Entries<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the table is mapped from here on, and locked.
        unsafe { bindings::pte_unmap_unlock(self.first, self.lock) };
    }
}
