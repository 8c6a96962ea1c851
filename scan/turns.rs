// SPDX-License-Identifier: GPL-2.0

//! The pages of a batch, one after another, each held by a reference of its own that allows to merge it.
//!
//! A small page has its reference from the walk. The references to large folios are given up before the
//! first turn, as a folio can be split by one holder only, and a page of another folio of the batch may
//! be the equal that it is to be merged with. They are taken anew, one folio at a time.

#![deny(unsafe_code)]

use crate::{
    merging::MergeState,
    mm::{
        held_pages::{
            HeldPage,
            HeldPages, //
        },
        page::PinnedPage, //
    }, //
};

/// A large folio whose pages have their turns one after another.
struct LargeFolio {
    /// The page whose turn was the last.
    page: HeldPage,
    pin: PinnedPage,
}

/// See the [module's description](self).
pub(super) struct Turns<'a> {
    held: &'a mut HeldPages,
    large: Option<LargeFolio>,
}

impl<'a> Turns<'a> {
    /// Gives up the references to large folios.
    pub(super) fn begin(held: &'a mut HeldPages) -> Self {
        held.release_large();
        Self { held, large: None }
    }

    /// The pages that are still held.
    pub(super) fn held(&self) -> &HeldPages {
        self.held
    }

    /// The page `wanted`, which `pin_again` takes a reference to if there is none any more.
    pub(super) fn take(
        &mut self,
        wanted: HeldPage,
        pin_again: impl FnOnce() -> Option<PinnedPage>,
    ) -> Option<PinnedPage> {
        if let Some(LargeFolio { page, pin }) = self.large.take() {
            if page.is_beside(wanted) {
                return pin.into_part(wanted.part());
            }
        }
        self.held.take(wanted).or_else(pin_again)
    }

    /// Ends the turn of `page`: gives its reference up, unless it is one to a large folio, of which
    /// further pages may follow.
    pub(super) fn end(&mut self, page: HeldPage, pin: PinnedPage, merge: &mut MergeState) {
        match pin.folio().is_large() && pin.folio().is_mapped() {
            true => self.large = Some(LargeFolio { page, pin }),
            false => merge.give_up(pin),
        }
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        self.held.clear();
    }
}
