// SPDX-License-Identifier: GPL-2.0

//! Page tables, and what their entries map.
//!
//! C header: [`include/linux/pgtable.h`](srctree/include/linux/pgtable.h)

use crate::mm::{
    folio::{
        Folio,
        LockedFolio,
        PinnedFolio, //
    },
    page::{
        Page,
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
/// its mm. It stays one for as long as the mmap lock is held, even if its value changes.
pub(crate) struct PageTable<'a> {
    vma: LockedVma<'a>,
    pmd: *mut bindings::pmd_t,
    range: Range<usize>,
}

/// Pages that a page table, or the huge page in its place, maps.
pub(crate) const PAGES_OF_HUGE_PAGE: usize = PAGE_SIZE / size_of::<bindings::pte_t>();

const HUGE_PAGE_SIZE: usize = PAGES_OF_HUGE_PAGE * PAGE_SIZE;

/// Addresses that are searched for page tables at a time: 64 GiB of address space, of which the tables
/// above those of entries fill a page for each GiB.
const SEARCHED_AT_ONCE: usize = 64 << 30;

/// A part of a vma, to a walk.
pub(crate) enum Part<'a> {
    Table(PageTable<'a>),
    /// No page table is there.
    Gap(Range<usize>),
}

impl Part<'_> {
    /// The addresses of the part.
    pub(crate) fn range(&self) -> &Range<usize> {
        match self {
            Part::Table(table) => &table.range,
            Part::Gap(range) => range,
        }
    }
}

impl<'a> PageTable<'a> {
    /// The page tables that there are for `range` of `vma`, in their order, and large gaps that were
    /// searched in vain.
    pub(crate) fn parts_of(
        vma: LockedVma<'a>,
        range: Range<usize>,
    ) -> impl Iterator<Item = Part<'a>> {
        let mut rest = range.start.max(vma.range().start)..range.end.min(vma.range().end);
        iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let end = rest.end.min(rest.start.saturating_add(SEARCHED_AT_ONCE));
            let part = match Self::first_in(vma, rest.start..end) {
                Some(table) => Part::Table(table),
                None => Part::Gap(rest.start..end),
            };
            rest.start = part.range().end;
            Some(part)
        })
    }

    /// The page tables that there are for `range` of `vma`, in their order.
    pub(crate) fn all_in(vma: LockedVma<'a>, range: Range<usize>) -> impl Iterator<Item = Self> {
        Self::parts_of(vma, range).filter_map(|part| match part {
            Part::Table(table) => Some(table),
            Part::Gap(_) => None,
        })
    }

    /// The page table for `address` of `vma`, or the huge page in its place.
    pub(crate) fn at(vma: LockedVma<'a>, address: usize) -> Option<Self> {
        Self::first_in(vma, address..address + PAGE_SIZE)
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

    /// Whether anybody has touched the huge page of `page`, which was found in place of the table, since that
    /// was last asked; `true` if it is gone. No TLB is flushed, so this is a hint.
    pub(crate) fn take_touched_huge(&self, page: &Page) -> bool {
        let (vma, folio) = (self.vma.as_raw(), page.folio().as_raw());
        // SAFETY: By the type invariant the entry is valid, and of the vma. The page's folio is alive.
        unsafe { bindings::ksm_take_young_pmd(vma, self.range.start, self.pmd, folio) }
    }

    /// The addresses that a huge page in place of the table would have.
    pub(crate) fn huge_range(&self) -> Range<usize> {
        let start = self.range.start - self.range.start % HUGE_PAGE_SIZE;
        start..start + HUGE_PAGE_SIZE
    }

    /// Lets nobody write the huge page of `page`, whose lock is `locked`; `None` if it is not the one in place of
    /// the table, or if anybody uses it but its mappings and the owner of `page`.
    pub(crate) fn protect_huge<'b>(
        &'b self,
        page: &'b PinnedPage,
        locked: &'b LockedFolio<'_>,
    ) -> Option<ProtectedHuge<'b>> {
        let folio = page.folio().as_raw();
        assert!(ptr::eq(folio, locked.folio().as_raw()));
        let vma = self.vma.as_raw();
        // SAFETY: By the type invariant the entry is valid, and of the vma. The folio is locked.
        let allowed = unsafe { bindings::ksm_protect_huge(vma, self.range.start, self.pmd, folio) };
        // INVARIANT: As long as the lock is held nobody can write the page again.
        allowed.then_some(ProtectedHuge { table: self, page })
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

/// A huge page that nobody can write.
///
/// # Invariants
///
/// [`PageTable::protect_huge`] has succeeded for the folio of `page`, which was locked and will be for the
/// duration of 'a.
pub(crate) struct ProtectedHuge<'a> {
    table: &'a PageTable<'a>,
    page: &'a PinnedPage,
}

impl<'a> ProtectedHuge<'a> {
    /// The page if all of it is zero.
    pub(crate) fn if_zero(self) -> Option<ZeroHuge<'a>> {
        let is_zero = self.page.parts().all(|part| part.is_zero_at_each_line());
        // INVARIANT: By the invariant of `Self` this goes on to be so.
        is_zero.then_some(ZeroHuge(self))
    }
}

/// A huge page that holds nothing but zeros.
///
/// # Invariants
///
/// It does for as long as this lives.
pub(crate) struct ZeroHuge<'a>(ProtectedHuge<'a>);

impl ZeroHuge<'_> {
    /// Maps the zero page instead; `false` if the huge page is not there any more.
    pub(crate) fn map_zeros(self) -> bool {
        let ProtectedHuge { table, page } = self.0;
        let (vma, folio) = (table.vma.as_raw(), page.folio().as_raw());
        // SAFETY: By the invariant of `PageTable` the entry is valid, and of the vma; by that of
        // `ProtectedHuge` the folio was protected, and is locked; by that of `Self` it is zero. The
        // mapping gives up its own reference.
        unsafe { bindings::ksm_map_huge_zeros(vma, table.range.start, table.pmd, folio) }
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
    /// The page at the first of its addresses.
    pub(crate) fn first(&self) -> &PinnedPage {
        &self.first
    }

    /// The address of all of it.
    pub(crate) fn address(&self) -> usize {
        self.range.start - self.range.start % HUGE_PAGE_SIZE
    }

    /// Whether this is all of it.
    pub(crate) fn is_whole(&self) -> bool {
        self.range.len() == HUGE_PAGE_SIZE
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = usize> + use<> {
        self.range.clone().step_by(PAGE_SIZE)
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
    /// The address of the next entry if that alone can tell that nobody has touched its page, since
    /// [`MappedPage::take_touched`] was asked. The page may be of any kind.
    pub(crate) fn untouched(&self) -> Option<usize> {
        let is_there = self.address < self.end;
        // SAFETY: By the type invariant there is an entry then, which is mapped and locked.
        let is_untouched =
            is_there && unsafe { bindings::ksm_is_untouched(self.vma.as_raw(), self.next) };
        is_untouched.then_some(self.address)
    }

    /// Goes past the next entry.
    pub(crate) fn pass(&mut self) {
        self.step();
    }

    /// The next anonymous page.
    pub(crate) fn next_anonymous(&mut self) -> Option<MappedPage<'_>> {
        let vma = self.vma.as_raw();
        let mut folio = ptr::null_mut();
        // SAFETY: By the type invariant the entries from `next` on are mapped and locked.
        let page = unsafe {
            let (next, address) = (&mut self.next, &mut self.address);
            bindings::ksm_next_anon_page(vma, next, address, self.end, &mut folio)
        };
        let entry = self.next;
        let address = self.step()?;
        // INVARIANT: The helper has found all of them there.
        Some(MappedPage {
            vma: self.vma,
            address,
            entry,
            page: NonNull::new(page)?,
            folio: NonNull::new(folio)?,
            _lock: PhantomData,
        })
    }

    /// The next entry of a page that KSM has put there.
    pub(crate) fn next_merged(&mut self) -> Option<MergedEntry<'_>> {
        let vma = self.vma.as_raw();
        let mut entry = bindings::pte_t::default();
        // SAFETY: By the type invariant the entries from `next` on are mapped and locked.
        let folio = unsafe {
            let (next, address) = (&mut self.next, &mut self.address);
            bindings::ksm_next_merged(vma, next, address, self.end, &mut entry)
        };
        let address = self.step()?;
        // INVARIANT: The helper has found the entry, and the folio there, if it is one of KSM.
        Some(MergedEntry {
            vma: self.vma,
            address,
            entry: Pte(entry),
            folio: NonNull::new(folio),
            _lock: PhantomData,
        })
    }

    /// Empties the entry of `address` if it is `pte`, of which TLBs may still know; returns whether.
    ///
    /// # Safety
    ///
    /// [`Entries::flush`] and [`Entries::map_copy`] must follow before the lock is given up.
    pub(super) unsafe fn clear_if(&mut self, address: usize, pte: Pte) -> bool {
        let (vma, entry) = (self.vma.as_raw(), self.entry(address));
        // SAFETY: By the type invariant the entry is mapped and locked, and of the vma.
        unsafe { bindings::ksm_ptep_clear_same(vma, address, entry, pte.0) }
    }

    /// Sees to it that no CPU uses what entries for `range` were before they were emptied.
    pub(super) fn flush(&mut self, range: Range<usize>) {
        // SAFETY: The vma is alive, and its mmap lock held.
        unsafe { bindings::ksm_flush_tlb(self.vma.as_raw(), range.start, range.end) };
    }

    /// Has the entry of `address` map `copy` instead of `folio`, which it did when it was `was`.
    ///
    /// The reference for the mapping of `folio` is to be given up.
    ///
    /// # Safety
    ///
    /// The entry must have been emptied and flushed since, and `copy` be new and known to nobody.
    pub(super) unsafe fn map_copy(
        &mut self,
        address: usize,
        was: Pte,
        folio: &PinnedFolio,
        copy: PinnedFolio,
    ) {
        let (vma, entry) = (self.vma.as_raw(), self.entry(address));
        let (folio, copy) = (folio.as_raw(), copy.into_raw());
        // SAFETY: By the type invariant the entry is mapped and locked; the caller vouches for the
        // rest. The reference to the copy goes to the entry, as does the reverse mapping that the
        // copy gets; the one that the folio loses was that of the entry.
        unsafe { bindings::ksm_map_copy(vma, address, entry, was.0, folio, copy) };
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
/// For the duration of 'a, `address` of `vma` maps `page`, which is part of `folio`, by `entry`.
pub(crate) struct MappedPage<'a> {
    vma: LockedVma<'a>,
    address: usize,
    entry: *mut bindings::pte_t,
    page: NonNull<bindings::page>,
    folio: NonNull<bindings::folio>,
    _lock: PhantomData<&'a Entries<'a>>,
}

impl<'a> MappedPage<'a> {
    pub(crate) fn address(&self) -> usize {
        self.address
    }

    /// The folio that the page is part of.
    pub(crate) fn folio(&self) -> &'a Folio {
        // SAFETY: By the type invariant the folio is mapped, and so not freed.
        unsafe { Folio::from_raw(self.folio.as_ptr()) }
    }

    /// Which page of its folio this is.
    pub(crate) fn part(&self) -> usize {
        (self.page.addr().get() - self.folio.addr().get()) / size_of::<bindings::page>()
    }

    /// Whether anybody has touched the page since that was last asked. No TLB is flushed, so this is a hint.
    pub(crate) fn take_touched(&self) -> bool {
        let (vma, folio) = (self.vma.as_raw(), self.folio().as_raw());
        // SAFETY: By the type invariant the entry is locked, and maps a page of the folio.
        unsafe { bindings::ksm_take_young(vma, self.address, self.entry, folio) }
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

/// The entry of an address whose page KSM has put there, as long as the lock of its table is held.
///
/// # Invariants
///
/// For the duration of 'a, `address` of `vma` has `entry`, which maps the KSM folio `folio`, if there
/// is one.
pub(crate) struct MergedEntry<'a> {
    vma: LockedVma<'a>,
    address: usize,
    entry: Pte,
    folio: Option<NonNull<bindings::folio>>,
    _lock: PhantomData<&'a Entries<'a>>,
}

impl<'a> MergedEntry<'a> {
    pub(crate) fn vma(&self) -> LockedVma<'a> {
        self.vma
    }

    pub(crate) fn address(&self) -> usize {
        self.address
    }

    pub(crate) fn get(&self) -> Pte {
        self.entry
    }

    /// The KSM folio, unless the page is one of zeros or just migrates.
    pub(crate) fn folio(&self) -> Option<&'a Folio> {
        // SAFETY: By the type invariant the folio is mapped, and so not freed.
        self.folio
            .map(|folio| unsafe { Folio::from_raw(folio.as_ptr()) })
    }

    /// As [`MergedEntry::folio`], with a reference, with which it stays when the lock is given up.
    pub(crate) fn hold(&self) -> Option<PinnedFolio> {
        // SAFETY: By the type invariant the folio is alive, and of KSM, so that it has one page; the
        // reference goes to the `PinnedFolio`.
        self.folio.map(|folio| unsafe {
            bindings::folio_get(folio.as_ptr());
            PinnedFolio::from_raw(folio)
        })
    }

    /// Whether a fault would wait for userfaultfd.
    pub(crate) fn is_kept_out(&self) -> bool {
        // SAFETY: By the type invariant the entry is of the vma, which is alive.
        unsafe { bindings::ksm_is_kept_out(self.vma.as_raw(), self.entry.0) }
    }
}

impl Drop for Entries<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the table is mapped from here on, and locked.
        unsafe { bindings::pte_unmap_unlock(self.first, self.lock) };
    }
}
