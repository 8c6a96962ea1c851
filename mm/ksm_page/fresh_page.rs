// SPDX-License-Identifier: GPL-2.0

//! New pages that become KSM pages, in place of one of those that are merged.

use crate::mm::{
    folio::LockedFolio,
    ksm_page::{
        ksm_folio::{
            self,
            Anchor, //
        },
        share::KsmPage, //
    },
    page::{
        Page,
        PinnedPage, //
    },
    vma::MergeableVma, //
};
use core::ptr::NonNull;
use kernel::bindings;

/// A copy of a page, in a frame that no process has had.
///
/// # Invariants
///
/// No page table entry maps the page, which is a folio of its own.
pub(crate) struct FreshPage(PinnedPage);

impl FreshPage {
    /// Copies the page of `locked`, which `address` of `vma` maps, and which may be written meanwhile:
    /// compare both before anybody maps the copy. Sleeps; `None` without memory for it.
    pub(crate) fn copy_of(
        locked: &LockedFolio<'_>,
        vma: &MergeableVma<'_>,
        address: usize,
    ) -> Option<Self> {
        // SAFETY: The mmap lock is held; the folio is alive, and a single page.
        let copy =
            unsafe { bindings::ksm_alloc_copy(locked.folio().as_raw(), vma.as_raw(), address) };
        // INVARIANT: It is new.
        // SAFETY: The reference to the new folio, which is one page, is passed on.
        NonNull::new(copy).map(|copy| Self(unsafe { PinnedPage::from_raw(copy.cast()) }))
    }

    pub(crate) fn page(&self) -> &Page {
        &self.0
    }

    /// Makes the page the KSM page of the node of `anchor`. Until somebody maps it, the reference that is returned keeps
    /// it: an LRU list has none.
    pub(crate) fn bind(self, anchor: &Anchor) -> KsmPage {
        let locked = self.0.folio().lock();
        // SAFETY: By the type invariant no entry maps the page. Nobody else adds it to an LRU list.
        unsafe {
            ksm_folio::bind(&locked, anchor);
            bindings::folio_add_lru(locked.folio().as_raw());
        }
        drop(locked);
        KsmPage::bound(self.0)
    }
}
