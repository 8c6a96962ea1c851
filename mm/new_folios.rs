// SPDX-License-Identifier: GPL-2.0

//! New folios of one page for a vma, many at a time.

use crate::mm::{
    folio::PinnedFolio,
    vma::LockedVma, //
};
use kernel::bindings;

/// New folios for a vma, up to `N` of them, which nobody else knows, and which are not charged yet.
///
/// # Invariants
///
/// Those from `next` up to the first that is `None` have not been taken; all others are `None`.
pub(crate) struct NewFolios<'a, const N: usize> {
    vma: LockedVma<'a>,
    folios: [Option<PinnedFolio>; N],
    next: usize,
}

impl<'a, const N: usize> NewFolios<'a, N> {
    pub(crate) fn new(vma: LockedVma<'a>) -> Self {
        // INVARIANT: There are none.
        Self {
            vma,
            folios: [const { None }; N],
            next: 0,
        }
    }

    /// A folio for `address` of the vma, the first of `wanted` that are still to be asked for; `None`
    /// if there is no memory at hand.
    pub(crate) fn take(&mut self, address: usize, wanted: usize) -> Option<PinnedFolio> {
        if self.folios.get(self.next).is_none_or(Option::is_none) {
            self.fill(address, wanted);
        }
        let folio = self.folios[self.next].take()?;
        // INVARIANT: It is taken.
        self.next += 1;
        Some(folio)
    }

    fn fill(&mut self, address: usize, wanted: usize) {
        let folios = self.folios.as_mut_ptr().cast();
        let wanted = wanted.clamp(1, N);
        // INVARIANT: All have been taken, so the folios begin at the front.
        self.next = 0;
        // SAFETY: The vma is alive, and any address will do. An `Option<PinnedFolio>` is a pointer to
        // a folio with its reference, or NULL: those here are NULL, and there is room for as many as
        // are asked for.
        unsafe { bindings::ksm_alloc_anon_folios(self.vma.as_raw(), address, wanted, folios) };
    }
}
