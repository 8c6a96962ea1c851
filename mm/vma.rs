// SPDX-License-Identifier: GPL-2.0

//! Areas of memory that were advised to be mergeable.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::mm::anon_vma::AnonVma;
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    mm::virt::{
        flags,
        VmaRef, //
    }, //
};

/// How the mmap lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmapLock {
    Read,
    Write,
}

/// A vma whose mmap lock is held, not just the vma's own.
///
/// # Invariants
///
/// For the duration of 'a the holder of this holds the mmap lock as `lock` says.
#[derive(Clone, Copy)]
pub(crate) struct LockedVma<'a> {
    vma: &'a VmaRef,
    lock: MmapLock,
}

impl<'a> LockedVma<'a> {
    /// # Safety
    ///
    /// `vma` must be a vma, and its mmap lock be held for the duration of 'a as `lock` says.
    pub(crate) unsafe fn from_raw(vma: *mut bindings::vm_area_struct, lock: MmapLock) -> Self {
        // INVARIANT: The caller vouches for it.
        Self {
            // SAFETY: The mmap lock is stronger than that of the vma.
            vma: unsafe { VmaRef::from_raw(vma) },
            lock,
        }
    }

    pub(crate) fn as_raw(&self) -> *mut bindings::vm_area_struct {
        self.vma.as_ptr()
    }

    /// The vma's address space.
    pub(crate) fn mm_raw(&self) -> *mut bindings::mm_struct {
        // SAFETY: The vma is alive, and its mm does not change.
        unsafe { (*self.as_raw()).vm_mm }
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.vma.start()..self.vma.end()
    }

    /// Whether the vma may have anonymous pages.
    pub(crate) fn is_populated(&self) -> bool {
        self.anon_vma().is_some()
    }

    /// The vma's anon_vma, if it has had an anonymous page.
    fn anon_vma(&self) -> Option<NonNull<bindings::anon_vma>> {
        // SAFETY: The mmap lock is held; a vma's anon_vma is set once, perhaps right now by a page
        // fault, and stays for as long as the lock is held.
        let anon_vma = unsafe { (&raw const (*self.as_raw()).anon_vma).read_volatile() };
        NonNull::new(anon_vma)
    }

    /// Keeps those out who have come by the vma's own lock, which does not go with a mmap lock that
    /// is held for writing; sleeps.
    pub(crate) fn exclude_others(&self) {
        if self.lock == MmapLock::Write {
            // SAFETY: By the type invariant the mmap lock is held for writing.
            unsafe { bindings::ksm_vma_start_write(self.as_raw()) };
        }
    }
}

/// A vma with `VM_MERGEABLE` set.
#[derive(Clone, Copy)]
pub(crate) struct AdvisedVma<'a> {
    vma: LockedVma<'a>,
}

impl<'a> AdvisedVma<'a> {
    /// `None` if the vma was not advised.
    pub(crate) fn new(vma: LockedVma<'a>) -> Option<Self> {
        (vma.vma.flags() & flags::MERGEABLE != 0).then_some(Self { vma })
    }

    /// `None` if the vma has not had an anonymous page yet.
    pub(crate) fn populated(self) -> Option<MergeableVma<'a>> {
        // INVARIANT: The pointer was just read from the vma.
        Some(MergeableVma {
            vma: self.vma,
            anon_vma: self.vma.anon_vma()?,
        })
    }
}

/// An advised vma that may have anonymous pages.
///
/// # Invariants
///
/// `anon_vma` is that of `vma`, or another one that `vma` is linked to.
pub(crate) struct MergeableVma<'a> {
    vma: LockedVma<'a>,
    anon_vma: NonNull<bindings::anon_vma>,
}

impl MergeableVma<'_> {
    pub(crate) fn as_raw(&self) -> *mut bindings::vm_area_struct {
        self.vma.as_raw()
    }

    pub(crate) fn vma(&self) -> LockedVma<'_> {
        self.vma
    }

    /// The vma's address space.
    pub(crate) fn mm_raw(&self) -> *mut bindings::mm_struct {
        self.vma.mm_raw()
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.vma.range()
    }

    /// The same vma as found through another anon_vma.
    ///
    /// # Safety
    ///
    /// The vma must be linked to `anon_vma`.
    pub(crate) unsafe fn through(&self, anon_vma: NonNull<bindings::anon_vma>) -> MergeableVma<'_> {
        // INVARIANT: The caller vouches for it.
        MergeableVma {
            vma: self.vma,
            anon_vma,
        }
    }

    /// A reference to the anon_vma that the vma is found through.
    pub(crate) fn anon_vma(&self) -> AnonVma {
        // SAFETY: A vma holds the anon_vmas that it is linked to, and the mmap lock holds the vma.
        unsafe { AnonVma::get(self.anon_vma) }
    }

    /// Whether `anon_vma` is what the vma is found through.
    pub(crate) fn has_anon_vma(&self, anon_vma: &AnonVma) -> bool {
        anon_vma.is(self.anon_vma)
    }

    /// A number that vmas with different anon_vmas rarely have in common.
    pub(crate) fn anon_vma_number(&self) -> usize {
        self.anon_vma.as_ptr().addr() / size_of::<bindings::anon_vma>()
    }

    /// The index under which the page at `address` stands in the anon_vma's tree of vmas.
    pub(crate) fn linear_index(&self, address: usize) -> usize {
        // SAFETY: The vma is alive; any address will do.
        unsafe { bindings::linear_anon_page_index(self.as_raw(), address) }
    }
}
