// SPDX-License-Identifier: GPL-2.0

//! Pages of user memory: their contents, references to them, and the large folios that they are part of.
//!
//! C header: [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h),
//! [`include/linux/huge_mm.h`](srctree/include/linux/huge_mm.h)

use crate::{
    kernel_api::prefetch::prefetch_for_later,
    mm::folio::{
        Folio,
        LockedFolio, //
    },
    page::content::{
        self,
        Content, //
    }, //
};
use core::{
    cmp::Ordering,
    mem,
    ops::{
        Deref,
        Range, //
    },
    ptr::NonNull, //
};
use kernel::{
    bindings,
    types::Opaque, //
};

/// A `struct page` of user memory, within a folio of any size.
///
/// # Invariants
///
/// The holder of a reference to a `Page` sees to it that its folio is not freed meanwhile.
#[repr(transparent)]
pub(crate) struct Page {
    page: Opaque<bindings::page>,
}

impl Page {
    /// # Safety
    ///
    /// `page` must be a page of user memory whose folio is not freed for the duration of 'a.
    pub(super) unsafe fn from_raw<'a>(page: *mut bindings::page) -> &'a Self {
        // SAFETY: `Page` is transparent, and the caller vouches for the rest.
        unsafe { &*page.cast() }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::page {
        self.page.get()
    }

    /// The folio that the page is part of.
    pub(crate) fn folio(&self) -> &Folio {
        // SAFETY: By the type invariant the page has a folio, which is not freed for as long as
        // `self` is borrowed.
        unsafe { Folio::from_raw(bindings::page_folio(self.as_raw())) }
    }

    /// Which page of its folio this is.
    pub(crate) fn part(&self) -> usize {
        (self.as_raw().addr() - self.folio().as_raw().addr()) / size_of::<bindings::page>()
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
        // aligned to one, and is undone before returning, by the same thread. Only user space or
        // a device changes the words meanwhile, and atomic loads allow for that.
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
    pub(crate) fn compare(&self, other: &Page, next: &Page) -> Ordering {
        self.with_content(|one| {
            other.with_content(|other| {
                next.with_content(|later| content::compare(one, other, later))
            })
        })
    }

    /// Whether the contents of two pages are equal, as [`Page::compare`] would say; has the CPU
    /// fetch `next` meanwhile.
    pub(crate) fn equals(&self, other: &Page, next: &Page) -> bool {
        self.with_content(|one| {
            other.with_content(|other| {
                next.with_content(|later| content::is_equal(one, other, later))
            })
        })
    }

    /// Whether samples of both pages are equal. Those of equal pages always are.
    pub(crate) fn sample_equals(&self, other: &Page) -> bool {
        self.with_content(|one| other.with_content(|other| content::sample_equals(one, other)))
    }

    /// Whether the page holds nothing but zeros.
    pub(crate) fn is_zero(&self) -> bool {
        self.with_content(content::is_zero)
    }

    /// As [`Page::is_zero`], for an unknown page: most are left at their first line.
    pub(crate) fn is_zero_at_each_line(&self) -> bool {
        self.with_content(content::is_zero_at_each_line)
    }

    /// Whether a sample of the page holds nothing but zeros. That of a page of zeros always does.
    pub(crate) fn sample_is_zero(&self) -> bool {
        self.with_content(content::sample_is_zero)
    }
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

    /// A second reference to the same page.
    pub(crate) fn share(&self) -> Self {
        // SAFETY: By the type invariant the page is alive; the reference is passed on.
        unsafe {
            bindings::folio_get(self.folio().as_raw());
            Self::from_raw(self.page)
        }
    }

    /// The folio's page number `part`, with the reference to it; `None` if it has fewer.
    pub(crate) fn into_part(mut self, part: usize) -> Option<Self> {
        if part >= self.folio().pages() {
            return None;
        }
        let first = NonNull::new(self.folio().as_raw())?.cast();
        // INVARIANT: The reference is to the folio, which the page is part of.
        // SAFETY: The pages of a folio stand side by side in the memory map, and the folio has one of
        // this number: while a reference is held nobody else can split it.
        self.page = unsafe { first.add(part) };
        Some(self)
    }

    /// All pages of the folio, which cannot be split meanwhile.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &Page> {
        let first = self.folio().as_raw().cast::<bindings::page>();
        (0..self.folio().pages()).map(move |part| {
            // SAFETY: The pages of a folio stand side by side in the memory map. By the type invariant a
            // reference is held for as long as `self` is borrowed.
            unsafe { Page::from_raw(first.wrapping_add(part)) }
        })
    }

    /// The folio, with the reference to it.
    pub(crate) fn into_folio(self) -> *mut bindings::folio {
        mem::ManuallyDrop::new(self).folio().as_raw()
    }

    /// Locks the page's folio after splitting it into single pages if it has more than one.
    ///
    /// Gives up if the lock is taken, or if somebody else uses the large folio.
    pub(crate) fn try_lock_single(&self) -> Option<LockedFolio<'_>> {
        let whole = self.folio().try_lock()?;
        if !whole.folio().is_large() {
            return Some(whole);
        }
        // SAFETY: The folio is locked, and this object owns the one reference that the caller of
        // split_huge_page() must have.
        if unsafe { bindings::ksm_split_huge_page(self.as_raw()) } != 0 {
            return None;
        }
        // SAFETY: The split has moved our lock, as our reference, to the folio that is now the page
        // alone.
        Some(unsafe { whole.moved_to(self.folio()) })
    }
}

impl Deref for PinnedPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: By the type invariant a reference to the folio is held for as long as `self` is
        // borrowed.
        unsafe { Page::from_raw(self.page.as_ptr()) }
    }
}

impl Drop for PinnedPage {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns a reference.
        unsafe { bindings::put_page(self.as_raw()) };
    }
}

/// Pages for the KUnit suites.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod fresh {
    use super::*;
    use core::sync::atomic::Ordering::Relaxed;
    use kernel::prelude::*;

    /// The first page of a folio of 2^`order` pages.
    pub(crate) fn large(order: u32) -> Result<PinnedPage> {
        let flags = bindings::GFP_KERNEL | 1 << bindings::___GFP_COMP_BIT;
        // SAFETY: A task that may sleep may call the function.
        let page = unsafe { bindings::alloc_pages(flags, order) };
        // SAFETY: The page is new, and its reference is passed on.
        Ok(unsafe { PinnedPage::from_raw(NonNull::new(page).ok_or(ENOMEM)?) })
    }

    /// A page all of whose words are `word`.
    pub(crate) fn page(word: u64) -> Result<PinnedPage> {
        let page = large(0)?;
        page.with_content(|content| {
            for place in content.as_flattened() {
                place.store(word, Relaxed);
            }
        });
        Ok(page)
    }
}

#[kernel::macros::kunit_tests(ksm_rs_page)]
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
            assert!(!almost.is_zero() && !almost.is_zero_at_each_line());
            assert!(zeros.is_zero_at_each_line());
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
