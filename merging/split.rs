// SPDX-License-Identifier: GPL-2.0

//! Which pages may be merged although that splits a large folio.
//!
//! With `huge_page_min_equal` above 1, a page of a large folio is merged only if the folio was found to be
//! worth a split. Until then the page waits in the unstable tree, or is looked up anew in each scan.

#![deny(unsafe_code)]

use super::{
    lookup::PinnedEqual,
    Merging, //
};
use crate::mm::{
    ksm_page::ids::ItemId,
    page::{
        Page,
        PinnedPage, //
    }, //
};

impl Merging<'_> {
    /// Whether the page of `item`, which has an equal, may be merged; if not, notes that it has one.
    pub(super) fn may_merge(&mut self, item: ItemId, page: &Page) -> bool {
        let may = self.is_worth_it(item, page);
        if !may {
            self.records.note_equal(item);
        }
        may
    }

    /// Whether both pages of a pair may be merged. If not, notes that they have equals, and decides which
    /// one waits in the unstable tree, where the other item is now.
    ///
    /// The one that waits does not look for its equals. So a page that must first be counted for its
    /// folio leaves the tree, if the other one may be merged at once.
    pub(super) fn may_merge_pair(
        &mut self,
        item: ItemId,
        page: &PinnedPage,
        (other, pinned): (ItemId, &PinnedEqual),
    ) -> bool {
        let may = self.is_worth_it(item, page);
        let other_may = self.is_worth_it(other, &pinned.page);
        if may && other_may {
            return true;
        }
        if may {
            self.records.leave_tree(other);
            self.find_waiting(item, page);
        }
        self.records.note_equal(item);
        self.records.note_equal(other);
        false
    }

    /// Whether it is worth it to split the folio of the page of `item`, if it has to be.
    fn is_worth_it(&self, item: ItemId, page: &Page) -> bool {
        let folio = page.folio();
        !folio.is_large()
            || self.shared.tunables.least_equal(folio.pages()) <= 1
            || self.records.may_split(item)
    }
}
