// SPDX-License-Identifier: GPL-2.0

//! Page table entries under their lock.
//!
//! C header: [`include/linux/pgtable.h`](srctree/include/linux/pgtable.h)

use crate::mm::{
    folio::Folio,
    vma::MergeableVma, //
};
use core::ptr;
use kernel::{
    bindings,
    types::NotThreadSafe, //
};

/// The value of a page table entry.
#[derive(Clone, Copy)]
pub(crate) struct Pte(pub(super) bindings::pte_t);

impl Pte {
    /// Whether the entry maps the page of `folio`, which has only one.
    pub(crate) fn maps(self, folio: &Folio) -> bool {
        // SAFETY: These functions look at the value only.
        unsafe { bindings::pte_present(self.0) && bindings::pte_pfn(self.0) == folio.pfn() }
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
        // SAFETY: The function looks at the value only.
        Self(unsafe { bindings::ksm_pte_wrprotect(self.0) })
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
}

impl Drop for PteGuard<'_> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the entry is mapped and locked.
        unsafe { bindings::pte_unmap_unlock(self.entry, self.lock) };
    }
}
