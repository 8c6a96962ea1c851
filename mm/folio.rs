// SPDX-License-Identifier: GPL-2.0

//! Folios, references to them and their locks.
//!
//! C header: [`include/linux/mm_types.h`](srctree/include/linux/mm_types.h),
//! [`include/linux/pagemap.h`](srctree/include/linux/pagemap.h)

use core::{
    mem,
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
/// The holder of a reference to a `Folio` sees to it that the folio is not freed meanwhile: by a
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

    /// The target of the `mapping` of the folio, and its flags, which tell the type of the target.
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

    /// How many pages the folio has.
    pub(crate) fn pages(&self) -> usize {
        // SAFETY: By the type invariant the folio is alive.
        unsafe { bindings::folio_nr_pages(self.as_raw()) }
    }

    /// Whether any page table maps the folio.
    pub(crate) fn is_mapped(&self) -> bool {
        // SAFETY: By the type invariant the folio is alive.
        unsafe { bindings::folio_mapped(self.as_raw()) }
    }

    /// Whether more than one page table entry may have the folio, which is a single page, in memory or in
    /// swap.
    pub(crate) fn may_have_other_owners(&self) -> bool {
        let folio = self.as_raw();
        // SAFETY: By the type invariant the folio is alive.
        unsafe { bindings::folio_mapcount(folio) > 1 || bindings::folio_test_swapcache(folio) }
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
        let folio = self.as_raw();
        // SAFETY: By the type invariant the folio is alive; its lock is held, so that it does not
        // enter or leave the swap cache.
        let (mappings, is_in_swap_cache, references) = unsafe {
            (
                bindings::folio_mapcount(folio),
                bindings::folio_test_swapcache(folio),
                bindings::folio_ref_count(folio),
            )
        };
        mappings + i32::from(is_in_swap_cache) + 1 == references
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

    /// The lock of `folio`, which was this one.
    ///
    /// # Safety
    ///
    /// A split must have moved the lock to `folio`.
    pub(super) unsafe fn moved_to<'b>(self, folio: &'b Folio) -> LockedFolio<'b> {
        mem::forget(self);
        // INVARIANT: The caller vouches for it.
        LockedFolio {
            folio,
            _nts: NotThreadSafe,
        }
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
