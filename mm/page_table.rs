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
    marker::PhantomData,
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

    /// The page at `address`; panics unless it lies in the range of the
    /// huge page.
    pub(crate) fn into_page_at(self, address: usize) -> PinnedPage {
        assert!(self.range.contains(&address));
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
    /// The next anonymous page.
    pub(crate) fn next_anonymous(&mut self) -> Option<MappedPage<'_>> {
        let vma = self.vma.as_raw();
        // SAFETY: By the type invariant the entries from `next` on are mapped and locked.
        let page = unsafe {
            bindings::ksm_next_anon_page(vma, &mut self.next, &mut self.address, self.end)
        };
        let address = self.step()?;
        // INVARIANT: The helper has found the page there.
        Some(MappedPage {
            vma: self.vma,
            address,
            page: NonNull::new(page)?,
            _lock: PhantomData,
        })
    }

    /// The next entry of a page that KSM has put there.
    pub(crate) fn next_merged(&mut self) -> Option<MergedEntry<'_>> {
        let vma = self.vma.as_raw();
        // SAFETY: By the type invariant the entries from `next` on are mapped and locked.
        let folio =
            unsafe { bindings::ksm_next_merged(vma, &mut self.next, &mut self.address, self.end) };
        let address = self.step()?;
        // INVARIANT: The helper has found the entry. A KSM folio has one page, which it begins with.
        Some(MergedEntry {
            entries: self,
            address,
            page: NonNull::new(folio.cast()),
        })
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

/// A page that an entry maps, as long as the lock of its table is held.
///
/// # Invariants
///
/// For the duration of 'a, `address` of `vma` maps `page`.
pub(crate) struct MappedPage<'a> {
    vma: LockedVma<'a>,
    address: usize,
    page: NonNull<bindings::page>,
    _lock: PhantomData<&'a Entries<'a>>,
}

impl<'a> MappedPage<'a> {
    pub(crate) fn vma(&self) -> LockedVma<'a> {
        self.vma
    }

    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// The folio that the page is part of.
    pub(crate) fn folio(&self) -> &'a Folio {
        // SAFETY: By the type invariant the page is mapped, and so not freed.
        unsafe { Folio::from_raw(bindings::page_folio(self.page.as_ptr())) }
    }

    /// Takes a reference, with which the page stays when the lock is given up.
    pub(crate) fn hold(&self) -> PinnedPage {
        // SAFETY: By the type invariant the page is alive, and one of user memory; the reference
        // goes to the `PinnedPage`.
        unsafe {
            bindings::folio_get(self.folio().as_raw());
            PinnedPage::from_raw(self.page)
        }
    }
}

/// The entry of an address whose page KSM has put there.
///
/// # Invariants
///
/// The entry of `address` is one of `entries`, and maps `page`, if there is one.
pub(crate) struct MergedEntry<'a> {
    entries: &'a Entries<'a>,
    address: usize,
    page: Option<NonNull<bindings::page>>,
}

impl<'a> MergedEntry<'a> {
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    pub(crate) fn get(&self) -> Pte {
        self.entries.get(self.address)
    }

    /// The KSM page, unless it is a page of zeros or just migrates.
    pub(crate) fn page(&self) -> Option<MappedPage<'a>> {
        // INVARIANT: By the type invariant the entry maps it. To change an entry takes `Entries`
        // for oneself, or their lock.
        self.page.map(|page| MappedPage {
            vma: self.entries.vma,
            address: self.address,
            page,
            _lock: PhantomData,
        })
    }

    /// Whether a fault would wait for userfaultfd.
    pub(crate) fn is_kept_out(&self) -> bool {
        let entry = self.entries.entry(self.address);
        // SAFETY: By the type invariant the entry is mapped and locked.
        unsafe { bindings::ksm_is_kept_out(self.entries.vma.as_raw(), entry) }
    }
}

impl Drop for Entries<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the table is mapped from here on, and locked.
        unsafe { bindings::pte_unmap_unlock(self.first, self.lock) };
    }
}
