// SPDX-License-Identifier: GPL-2.0

//! Folios, references to them and their locks.
//!
//! C header: [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use crate::{
    kernel_api::prefetch::prefetch_for_later,
    page::content::{
        self,
        Content, //
    }, //
};
use core::{
    cmp::Ordering,
    mem,
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    ffi::c_void,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

/// A `struct folio`.
///
/// # Invariants
///
/// Whoever has a reference to a `Folio` sees to it that the folio is not freed meanwhile: by a
/// reference count, or by the lock of a page table that maps it.
#[repr(transparent)]
pub(crate) struct Folio {
    folio: Opaque<bindings::folio>,
}

impl Folio {
    /// # Safety
    ///
    /// `folio` must be a folio that is not freed for the duration of 'a.
    pub(crate) unsafe fn from_raw<'a>(folio: *mut bindings::folio) -> &'a Self {
        // SAFETY: `Folio` is transparent, and the caller vouches for the rest.
        unsafe { &*folio.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::folio {
        self.folio.get()
    }

    /// The anon_vma that an anonymous folio names, which may be freed unless the folio is mapped;
    /// `None` for any other folio, and for a KSM page.
    pub(crate) fn anon_vma(&self) -> Option<NonNull<bindings::anon_vma>> {
        let (anon_vma, flags) = self.mapping();
        NonNull::new(anon_vma.cast()).filter(|_| flags == bindings::FOLIO_MAPPING_ANON)
    }

    /// What the `mapping` of the folio points to, and its flags, which say what that is.
    #[inline]
    pub(super) fn mapping(&self) -> (*mut c_void, u32) {
        // SAFETY: By the type invariant the folio is alive; the pointer is not followed.
        let mapping = unsafe { bindings::ksm_folio_mapping(self.as_raw()) };
        let flags = mapping.addr() & bindings::FOLIO_MAPPING_FLAGS as usize;
        (mapping.wrapping_byte_sub(flags), flags as u32)
    }

    /// Whether the folio has more than one page.
    pub(crate) fn is_large(&self) -> bool {
        // SAFETY: By the type invariant the folio is alive.
        unsafe { bindings::folio_test_large(self.as_raw()) }
    }

    /// Whether any page table maps the folio.
    pub(crate) fn is_mapped(&self) -> bool {
        // SAFETY: By the type invariant the folio is alive.
        unsafe { bindings::folio_mapped(self.as_raw()) }
    }

    /// The page frame number of the folio's first page.
    pub(crate) fn pfn(&self) -> usize {
        // SAFETY: By the type invariant the folio is alive.
        unsafe { bindings::folio_pfn(self.as_raw()) }
    }

    /// Whether the folio has exactly the references that its mappings, the swap cache
    /// and one [`PinnedPage`] explain: nobody else can be reading or writing it.
    ///
    /// Holds until a page table entry can be followed to the folio again.
    pub(crate) fn has_no_other_user(&self, _lock: &LockedFolio<'_>) -> bool {
        // SAFETY: By the type invariant the folio is alive; its lock is held, so that it does not
        // enter or leave the swap cache.
        unsafe { bindings::ksm_folio_has_no_other_user(self.as_raw()) }
    }

    /// Takes the folio's lock; sleeps until it is free.
    pub(crate) fn lock(&self) -> LockedFolio<'_> {
        // SAFETY: By the type invariant the folio is alive.
        unsafe { bindings::folio_lock(self.as_raw()) };
        // INVARIANT: The lock was just taken.
        LockedFolio {
            folio: self,
            _nts: NotThreadSafe,
        }
    }

    /// Takes the folio's lock if it is free.
    pub(crate) fn try_lock(&self) -> Option<LockedFolio<'_>> {
        // SAFETY: By the type invariant the folio is alive.
        let locked = unsafe { bindings::folio_trylock(self.as_raw()) };
        // INVARIANT: The lock was just taken.
        locked.then(|| LockedFolio {
            folio: self,
            _nts: NotThreadSafe,
        })
    }
}

/// A folio whose lock is held.
///
/// # Invariants
///
/// This guard owns the lock of `folio`.
pub(crate) struct LockedFolio<'a> {
    folio: &'a Folio,
    _nts: NotThreadSafe,
}

impl<'a> LockedFolio<'a> {
    /// The folio, for as long as it would live without its lock.
    pub(crate) fn folio(&self) -> &'a Folio {
        self.folio
    }
}

impl Drop for LockedFolio<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held.
        unsafe { bindings::folio_unlock(self.folio.as_raw()) };
    }
}

/// One more than the highest number of a NUMA node.
#[cfg(CONFIG_NUMA)]
pub(crate) fn node_ids() -> usize {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::ksm_nr_node_ids() as usize }
}

/// The page frame number of the zero page.
pub(crate) fn zero_pfn() -> usize {
    // SAFETY: The zero page always exists.
    unsafe { bindings::ksm_zero_pfn() as usize }
}

/// A page that cannot go away, within a folio of any size.
///
/// # Invariants
///
/// `page` is a page of user memory, and this object owns one reference to its folio.
pub(crate) struct PinnedPage {
    page: NonNull<bindings::page>,
}

// SAFETY: A reference to a folio may be dropped by any thread.
unsafe impl Send for PinnedPage {}

impl PinnedPage {
    /// # Safety
    ///
    /// `page` must be a page of user memory, and the caller must own a reference to its folio,
    /// which it gives up.
    pub(crate) unsafe fn from_raw(page: NonNull<bindings::page>) -> Self {
        // INVARIANT: The caller vouches for it.
        Self { page }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::page {
        self.page.as_ptr()
    }

    /// The page that lies `distance` pages behind this one.
    ///
    /// # Safety
    ///
    /// It must be part of the same folio.
    pub(crate) unsafe fn into_neighbour(mut self, distance: usize) -> Self {
        // INVARIANT: The reference is to the folio; the caller vouches for the page.
        // SAFETY: The pages of a folio stand side by side in the memory map.
        self.page = unsafe { self.page.add(distance) };
        self
    }

    /// The folio, with the reference to it.
    pub(crate) fn into_folio(self) -> *mut bindings::folio {
        mem::ManuallyDrop::new(self).folio().as_raw()
    }

    /// The folio that the page is part of.
    pub(crate) fn folio(&self) -> &Folio {
        // SAFETY: By the type invariant the page has a folio, to which a reference is held for as
        // long as `self` is borrowed.
        unsafe { Folio::from_raw(bindings::page_folio(self.as_raw())) }
    }

    /// The page frame number.
    pub(crate) fn pfn(&self) -> usize {
        // SAFETY: By the type invariant the page is alive.
        unsafe { bindings::page_to_pfn(self.as_raw()) }
    }

    /// Whether the hardware has lost the page's content: to read it may stop the machine.
    pub(crate) fn is_poisoned(&self) -> bool {
        // SAFETY: By the type invariant the page is alive.
        unsafe { bindings::ksm_page_is_poisoned(self.as_raw()) }
    }

    /// The NUMA node that the page is on.
    pub(crate) fn node(&self) -> i32 {
        // SAFETY: By the type invariant the page is alive.
        unsafe { bindings::page_to_nid(self.as_raw()) }
    }

    /// Calls `f` with the page's content, which others may be writing.
    #[inline]
    pub(crate) fn with_content<R>(&self, f: impl FnOnce(&Content) -> R) -> R {
        // SAFETY: By the type invariant the page is alive. The mapping is as long as a page and
        // aligned to one, and is undone before returning, by the same thread. Whoever else changes
        // the words is user space or the likes of DMA, of which atomic loads see something.
        unsafe {
            let content = bindings::kmap_local_page(self.as_raw());
            let result = f(&*content.cast::<Content>());
            bindings::kunmap_local(content);
            result
        }
    }

    /// Asks the CPU to fetch some lines of the page, and with them where the page lies.
    #[inline]
    pub(crate) fn prefetch(&self, lines: Range<usize>) {
        self.with_content(|content| {
            for line in content.get(lines).into_iter().flatten() {
                prefetch_for_later(line);
            }
        });
    }

    /// Compares the contents of two pages, in an arbitrary but consistent order; has the CPU fetch
    /// `next` meanwhile.
    ///
    /// If a page is written meanwhile the answer is about nothing that ever was: who merges pages
    /// must ask once more when neither can be written.
    pub(crate) fn compare(&self, other: &PinnedPage, next: &PinnedPage) -> Ordering {
        self.with_content(|one| {
            other.with_content(|other| {
                next.with_content(|later| content::compare(one, other, later))
            })
        })
    }

    /// Whether the contents of two pages are equal, as [`PinnedPage::compare`] would say; has the CPU
    /// fetch `next` meanwhile.
    pub(crate) fn equals(&self, other: &PinnedPage, next: &PinnedPage) -> bool {
        self.with_content(|one| {
            other.with_content(|other| {
                next.with_content(|later| content::is_equal(one, other, later))
            })
        })
    }

    /// Whether samples of both pages are equal. Those of equal pages always are.
    pub(crate) fn sample_equals(&self, other: &PinnedPage) -> bool {
        self.with_content(|one| other.with_content(|other| content::sample_equals(one, other)))
    }

    /// Whether the page holds nothing but zeros.
    pub(crate) fn is_zero(&self) -> bool {
        self.with_content(content::is_zero)
    }

    /// Whether a sample of the page holds nothing but zeros. That of a page of zeros always does.
    pub(crate) fn sample_is_zero(&self) -> bool {
        self.with_content(content::sample_is_zero)
    }

    /// Locks the page's folio after splitting it into single pages if it has more than one.
    ///
    /// Gives up if the lock is taken, or if somebody else uses the large folio.
    pub(crate) fn try_lock_single(&self) -> Option<LockedFolio<'_>> {
        let whole = self.folio().try_lock()?;
        if !whole.folio.is_large() {
            return Some(whole);
        }
        // SAFETY: The folio is locked, and this object owns the one reference that the caller of
        // split_huge_page() must have.
        if unsafe { bindings::ksm_split_huge_page(self.as_raw()) } != 0 {
            return None;
        }
        // The split has moved our lock, as our reference, to the folio that is now the page alone.
        mem::forget(whole);
        // INVARIANT: See above.
        Some(LockedFolio {
            folio: self.folio(),
            _nts: NotThreadSafe,
        })
    }
}

impl Drop for PinnedPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns a reference.
        unsafe { bindings::put_page(self.as_raw()) };
    }
}

/// A folio of one page that cannot go away.
///
/// # Invariants
///
/// `folio` is of user memory, has one page, and this object owns one reference to it.
#[repr(transparent)]
pub(crate) struct PinnedFolio {
    folio: NonNull<bindings::folio>,
}

impl PinnedFolio {
    /// # Safety
    ///
    /// `folio` must be of user memory and have one page, and the caller must own a reference, which
    /// it gives up.
    pub(super) unsafe fn from_raw(folio: NonNull<bindings::folio>) -> Self {
        // INVARIANT: The caller vouches for it.
        Self { folio }
    }

    pub(super) fn as_raw(&self) -> *mut bindings::folio {
        self.folio.as_ptr()
    }

    /// The folio, with the reference to it.
    pub(super) fn into_raw(self) -> *mut bindings::folio {
        mem::ManuallyDrop::new(self).as_raw()
    }
}

impl Drop for PinnedFolio {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns a reference.
        unsafe { bindings::folio_put(self.as_raw()) };
    }
}

/// Pages for the KUnit suites.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod fresh {
    use super::*;
    use core::sync::atomic::Ordering::Relaxed;
    use kernel::prelude::*;

    impl PinnedPage {
        /// A second reference to the same page.
        pub(crate) fn share(&self) -> Self {
            // SAFETY: By the type invariant the page is alive; the reference is passed on.
            unsafe {
                bindings::folio_get(self.folio().as_raw());
                Self::from_raw(self.page)
            }
        }
    }

    /// A page of which each word is `word`.
    pub(crate) fn page(word: u64) -> Result<PinnedPage> {
        // SAFETY: The function may be called by who may sleep.
        let page = unsafe { bindings::alloc_pages(bindings::GFP_KERNEL, 0) };
        // SAFETY: The page is new, and its reference is passed on.
        let page = unsafe { PinnedPage::from_raw(NonNull::new(page).ok_or(ENOMEM)?) };
        page.with_content(|content| {
            for place in content.as_flattened() {
                place.store(word, Relaxed);
            }
        });
        Ok(page)
    }
}

#[kernel::macros::kunit_tests(ksm_rs_folio)]
mod tests {
    use super::{
        fresh::page,
        *, //
    };
    use core::sync::atomic::Ordering::Relaxed;
    use kernel::prelude::*;

    #[test]
    fn pages_compare_by_their_words() -> Result {
        let (one, same, other) = (page(1)?, page(1)?, page(2)?);
        assert!(one.compare(&same, &other) == Ordering::Equal && one.equals(&same, &other));
        assert!(one.compare(&other, &one) == Ordering::Less && !one.equals(&other, &one));
        assert!(one.sample_equals(&same) && !one.sample_equals(&other));
        assert!(other.compare(&one, &one) == Ordering::Greater);
        assert!(one.pfn() != same.pfn());
        assert!(page(0)?.is_zero() && !one.is_zero());
        assert!(page(0)?.sample_is_zero() && !one.sample_is_zero());
        for place in [0, 1, 7, 8, 500, 511] {
            let (zeros, almost) = (page(0)?, page(0)?);
            almost.with_content(|content| {
                content.as_flattened()[place].store(1 << 63, Relaxed);
            });
            assert!(zeros.compare(&almost, &zeros) == Ordering::Less);
            assert!(!almost.is_zero());
        }
        Ok(())
    }

    #[test]
    fn a_lock_has_one_owner() -> Result {
        let page = page(0)?;
        let locked = page.folio().try_lock();
        assert!(locked.is_some());
        assert!(page.folio().try_lock().is_none());
        assert!(page.try_lock_single().is_none());
        drop(locked);
        assert!(page.try_lock_single().is_some());
        drop(page.folio().lock());
        Ok(())
    }

    #[test]
    fn a_second_reference_shows() -> Result {
        let page = page(0)?;
        let locked = page.folio().lock();
        assert!(page.folio().has_no_other_user(&locked));
        let second = page.share();
        assert!(!page.folio().has_no_other_user(&locked));
        drop(second);
        assert!(page.folio().has_no_other_user(&locked));
        Ok(())
    }
}
