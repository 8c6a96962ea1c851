// SPDX-License-Identifier: GPL-2.0

//! The objects by which an anonymous page's mappings are found.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    page::PAGE_SHIFT,
    types::NotThreadSafe, //
};

/// A counted reference to a `struct anon_vma`.
///
/// # Invariants
///
/// `anon_vma` is alive, and this object owns one reference to it.
pub(crate) struct AnonVma {
    anon_vma: NonNull<bindings::anon_vma>,
}

// SAFETY: A reference to an anon_vma may be dropped by any thread.
unsafe impl Send for AnonVma {}
// SAFETY: All methods that take `&self` may be called by several threads at once.
unsafe impl Sync for AnonVma {}

impl AnonVma {
    /// Takes a new reference.
    ///
    /// # Safety
    ///
    /// `anon_vma` must be alive.
    pub(crate) unsafe fn get(anon_vma: NonNull<bindings::anon_vma>) -> Self {
        // SAFETY: The caller vouches for it.
        unsafe { bindings::get_anon_vma(anon_vma.as_ptr()) };
        // INVARIANT: A reference was just taken.
        Self { anon_vma }
    }

    /// Whether this is a reference to `anon_vma`.
    pub(crate) fn is(&self, anon_vma: NonNull<bindings::anon_vma>) -> bool {
        self.anon_vma == anon_vma
    }

    /// Locks out those who would link or unlink vmas; sleeps.
    pub(crate) fn read(&self) -> AnonVmaReadGuard<'_> {
        // SAFETY: By the type invariant the anon_vma is alive.
        unsafe { bindings::anon_vma_lock_read(self.anon_vma.as_ptr()) };
        // INVARIANT: The lock was just taken.
        AnonVmaReadGuard {
            anon_vma: self,
            _nts: NotThreadSafe,
        }
    }

    /// As [`AnonVma::read`], if that is possible at once.
    pub(crate) fn try_read(&self) -> Option<AnonVmaReadGuard<'_>> {
        // SAFETY: By the type invariant the anon_vma is alive.
        let locked = unsafe { bindings::anon_vma_trylock_read(self.anon_vma.as_ptr()) };
        // INVARIANT: The lock was just taken.
        (locked != 0).then(|| AnonVmaReadGuard {
            anon_vma: self,
            _nts: NotThreadSafe,
        })
    }
}

impl Drop for AnonVma {
    fn drop(&mut self) {
        // SAFETY: By the type invariant this object owns a reference.
        unsafe { bindings::put_anon_vma(self.anon_vma.as_ptr()) };
    }
}

/// An anon_vma whose tree of vmas does not change.
///
/// # Invariants
///
/// This guard owns the read lock of `anon_vma`.
pub(crate) struct AnonVmaReadGuard<'a> {
    anon_vma: &'a AnonVma,
    _nts: NotThreadSafe,
}

impl AnonVmaReadGuard<'_> {
    /// Lets others run if it is their turn; returns whether somebody waits for the lock: who would
    /// link or unlink vmas, or comes behind such.
    pub(crate) fn resched(&self) -> bool {
        // SAFETY: A task that holds this lock may sleep. By the type invariant the anon_vma is alive, and
        // so is its root, whose lock it is.
        unsafe {
            bindings::cond_resched();
            bindings::ksm_anon_vma_is_contended(self.anon_vma.anon_vma.as_ptr())
        }
    }

    /// The vmas that can map the page of linear index `index`.
    pub(crate) fn vmas_with(&self, index: usize) -> VmasWith<'_> {
        // INVARIANT: There is no last entry yet.
        VmasWith {
            guard: self,
            last: None,
            index,
        }
    }
}

impl Drop for AnonVmaReadGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the lock is held.
        unsafe { bindings::anon_vma_unlock_read(self.anon_vma.anon_vma.as_ptr()) };
    }
}

/// Iterator over the vmas that can map a page. Most pages have one, so the next is looked for only
/// when it is asked for.
///
/// # Invariants
///
/// `last` is an entry of the tree of the anon_vma whose lock is held by `guard`.
pub(crate) struct VmasWith<'a> {
    guard: &'a AnonVmaReadGuard<'a>,
    last: Option<NonNull<bindings::anon_vma_chain>>,
    index: usize,
}

impl<'a> Iterator for VmasWith<'a> {
    type Item = RmapVma<'a>;

    fn next(&mut self) -> Option<RmapVma<'a>> {
        let anon_vma = self.guard.anon_vma.anon_vma;
        // SAFETY: By the type invariants the anon_vma is alive, its lock held, and the last entry
        // one of its tree.
        let entry = unsafe {
            match self.last {
                None => bindings::ksm_anon_rmap_first(anon_vma.as_ptr(), self.index, self.index),
                Some(last) => bindings::ksm_anon_rmap_next(last.as_ptr(), self.index, self.index),
            }
        };
        let entry = NonNull::new(entry)?;
        // INVARIANT: The entry was just found in that tree.
        self.last = Some(entry);
        // SAFETY: See there; an entry of a tree has a vma.
        let vma = unsafe { (*entry.as_ptr()).vma };
        // INVARIANT: A vma is unlinked from its anon_vmas, which are locked, before it is freed.
        Some(RmapVma {
            vma,
            _guard: PhantomData,
        })
    }
}

/// A vma that was found through an anon_vma; no mmap lock is held.
///
/// # Invariants
///
/// `vma` is alive, and its bounds do not change, for the duration of 'a.
pub(crate) struct RmapVma<'a> {
    vma: *mut bindings::vm_area_struct,
    _guard: PhantomData<&'a AnonVmaReadGuard<'a>>,
}

impl RmapVma<'_> {
    pub(crate) fn as_raw(&self) -> *mut bindings::vm_area_struct {
        self.vma
    }

    /// Where the vma maps the page of linear index `index`, for which it was found.
    pub(crate) fn address_of(&self, index: usize) -> usize {
        // SAFETY: By the type invariant the vma is alive and its bounds stay; any address will do.
        let (start, first) = unsafe {
            let start = (*self.vma).__bindgen_anon_1.__bindgen_anon_1.vm_start;
            (start, bindings::linear_anon_page_index(self.vma, start))
        };
        start.wrapping_add(index.wrapping_sub(first) << PAGE_SHIFT)
    }

    /// The address space of the vma, to be compared only.
    pub(crate) fn mm(&self) -> *const bindings::mm_struct {
        // SAFETY: By the type invariant the vma is alive.
        unsafe { (*self.vma).vm_mm }
    }
}

/// An anon_vma that no vma is linked to, for KUnit suites that need one to refer to.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn unlinked() -> AnonVma {
    use kernel::types::Opaque;

    struct Unlinked(Opaque<bindings::anon_vma>);

    // SAFETY: Only the count of references is used, which is atomic.
    unsafe impl Sync for Unlinked {}

    // Zeros are a valid anon_vma: the first reference is that of `get()`, and it is never given back.
    static UNLINKED: Unlinked = Unlinked(Opaque::zeroed());
    let anon_vma = NonNull::from(&UNLINKED.0).cast();
    // SAFETY: It is a static. The reference that is leaked here keeps the count from becoming zero
    // again, so that it is never freed.
    core::mem::forget(unsafe { AnonVma::get(anon_vma) });
    // SAFETY: It is a static.
    unsafe { AnonVma::get(anon_vma) }
}
