// SPDX-License-Identifier: GPL-2.0

//! Page table entries under their lock.
//!
//! C header: [`include/linux/pgtable.h`](srctree/include/linux/pgtable.h)

use crate::mm::{
    folio::{
        zero_pfn,
        Folio, //
    },
    vma::MergeableVma, //
};
use core::ptr;
use kernel::{
    bindings,
    ffi::c_ulong,
    types::NotThreadSafe, //
};

/// The value of a page table entry.
#[derive(Clone, Copy)]
pub(crate) struct Pte(pub(super) bindings::pte_t);

impl Pte {
    /// Whether the entry maps the page of `folio`, which has only one.
    pub(crate) fn maps(self, folio: &Folio) -> bool {
        // SAFETY: Both functions look at the value only.
        unsafe { bindings::pte_present(self.0) && bindings::pte_pfn(self.0) == folio.pfn() }
    }

    /// Whether the entry maps the kernel's page of zeros.
    pub(crate) fn is_of_zeros(self) -> bool {
        // SAFETY: The functions only look at the value.
        unsafe {
            bindings::pte_present(self.0) && bindings::pte_pfn(self.0) == zero_pfn() as c_ulong
        }
    }

    /// Whether the page is there, and every access to it a fault.
    pub(crate) fn is_protnone(self) -> bool {
        // SAFETY: The function looks at the value only.
        unsafe { bindings::pte_protnone(self.0) }
    }

    pub(crate) fn is_writable(self) -> bool {
        // SAFETY: The function looks at the value only.
        unsafe { bindings::pte_write(self.0) }
    }

    pub(crate) fn is_dirty(self) -> bool {
        // SAFETY: The function looks at the value only.
        unsafe { bindings::pte_dirty(self.0) }
    }

    /// The entry, clean and without the permission to write.
    pub(crate) fn write_protected(self) -> Self {
        // SAFETY: Both functions look at the value only.
        Self(unsafe { bindings::pte_wrprotect(bindings::pte_mkclean(self.0)) })
    }
}

/// A page table entry whose page table is locked.
///
/// # Invariants
///
/// `entry` is the mapped entry of `address` in `vma`, and this guard owns its lock, `lock`.
pub(crate) struct PteGuard<'a> {
    vma: &'a MergeableVma<'a>,
    address: usize,
    entry: *mut bindings::pte_t,
    lock: *mut bindings::spinlock_t,
    _nts: NotThreadSafe,
}

impl<'a> PteGuard<'a> {
    /// `None` if there is no page table for `address`, or a huge page.
    pub(crate) fn lock(vma: &'a MergeableVma<'a>, address: usize) -> Option<Self> {
        if !vma.range().contains(&address) {
            return None;
        }
        let mut lock = ptr::null_mut();
        // SAFETY: The mm is alive and its mmap lock held, and the address lies in one of its vmas.
        let entry = unsafe { bindings::ksm_find_pte_lock(vma.mm_raw(), address, &mut lock) };
        // INVARIANT: The entry was just mapped and locked.
        (!entry.is_null()).then(|| Self {
            vma,
            address,
            entry,
            lock,
            _nts: NotThreadSafe,
        })
    }

    pub(crate) fn get(&self) -> Pte {
        // SAFETY: By the type invariant the entry is mapped.
        Pte(unsafe { bindings::ptep_get(self.entry) })
    }

    /// Empties the entry, and returns when no CPU uses it any more.
    ///
    /// Until the entry is set again, neither a CPU nor get_user_pages() finds the page through it.
    pub(super) fn clear_flush(&mut self) -> Pte {
        // SAFETY: By the type invariant the entry is mapped and locked, and belongs to the vma.
        Pte(unsafe { bindings::ksm_ptep_clear_flush(self.vma.as_raw(), self.address, self.entry) })
    }

    /// Fills an entry that is empty.
    ///
    /// # Safety
    ///
    /// `pte` must map a page that has a reference and a reverse mapping for it.
    pub(super) unsafe fn set(&mut self, pte: Pte) {
        // SAFETY: By the type invariant the entry is mapped and locked.
        unsafe { bindings::set_pte_at(self.vma.mm_raw(), self.address, self.entry, pte.0) };
    }

    /// Has the entry map the KSM page `ksm` instead of the page of `old`.
    ///
    /// # Safety
    ///
    /// The entry must have mapped `old` when it was `was`, and have been emptied and flushed since. Both
    /// folios must have one page, and `old` be locked.
    pub(super) unsafe fn map_merged(&mut self, was: Pte, old: &Folio, ksm: &Folio) {
        let (vma, address) = (self.vma.as_raw(), self.address);
        let (old, ksm) = (old.as_raw(), ksm.as_raw());
        // SAFETY: By the type invariant the entry is mapped and locked; the caller vouches for the
        // rest. The KSM page gets a reference and a reverse mapping, and the old one loses its own.
        unsafe { bindings::ksm_map_merged(vma, address, self.entry, was.0, old, ksm) };
    }

    /// As [`PteGuard::map_merged`], for the kernel's page of zeros.
    ///
    /// # Safety
    ///
    /// As there.
    pub(super) unsafe fn map_zeros(&mut self, was: Pte, old: &Folio) {
        let (vma, address) = (self.vma.as_raw(), self.address);
        // SAFETY: As there. The page of zeros has no reverse mappings.
        unsafe { bindings::ksm_map_zeros(vma, address, self.entry, was.0, old.as_raw()) };
    }
}

impl Drop for PteGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the entry is mapped and locked.
        unsafe { bindings::pte_unmap_unlock(self.entry, self.lock) };
    }
}
