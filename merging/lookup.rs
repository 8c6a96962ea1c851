// SPDX-License-Identifier: GPL-2.0

//! Finding a page's equals that wait in the unstable tree.

#![deny(unsafe_code)]

use super::Merging;
use crate::{
    containers::rbtree::Verdict,
    mm::{
        address_space::{
            user_of,
            Patience,
            ReadLockedMm,
            UserMm, //
        },
        ksm_page::{
            compare::verdict,
            ids::ItemId,
            walk::{
                page_at,
                Candidates,
                FoundPage, //
            }, //
        },
        page::PinnedPage, //
    },
    records::waiting::Locations,
    unstable_tree::Outcome, //
};
use kernel::prelude::*;

/// The page of an item, pinned together with its address space.
pub(super) struct PinnedEqual {
    pub(super) mm: UserMm,
    pub(super) page: PinnedPage,
}

/// How a search of the unstable tree for a page's equal has ended.
pub(super) enum UnstableResult {
    /// The page of this item is equal.
    Equal(ItemId, PinnedEqual),
    /// No page is equal. The item of the page is in the tree now.
    Waiting,
    /// The search met a page that could not be compared. The item of the page is not in the tree.
    Refused,
}

/// The number of items without a page that a search takes out of the unstable tree. More of them in
/// one place are no accident.
const MOST_GONE: usize = 8;

impl Merging<'_> {
    /// Takes a reference to the page at `address` in the address space whose pages are merged; `None` if
    /// its mmap lock cannot be had, or if the page is gone or merged.
    pub(crate) fn pin_page(&mut self, address: usize) -> Option<PinnedPage> {
        let locked = ReadLockedMm::try_new(self.mm, &mut self.state.patience)?;
        let vma = locked.advised_at(address)?;
        match page_at(&vma, address, self.records.nodes(), &mut self.state.probe)? {
            FoundPage::Anonymous(page) => Some(page),
            FoundPage::Ksm(_) => None,
        }
    }

    /// Looks in the unstable tree for a page like `page`, whose item waits there if there is none.
    pub(super) fn find_waiting(&mut self, item: ItemId, page: &PinnedPage) -> UnstableResult {
        for _ in 0..MOST_GONE {
            match self.search_waiting(item, page) {
                Ok(result) => return result,
                Err(gone) => self.records.leave_tree(gone),
            }
        }
        UnstableResult::Refused
    }

    /// As [`Merging::find_waiting`], unless an item stands in the way that has no page any more:
    /// then returns that one.
    fn search_waiting(
        &mut self,
        item: ItemId,
        page: &PinnedPage,
    ) -> Result<UnstableResult, ItemId> {
        let by_node = self.records.is_by_node();
        let mut pinned = Err(CannotPin::Contended);
        let (patience, probe) = (&mut self.state.patience, &mut self.state.probe);
        let outcome = self.records.search_or_wait(item, page, |other, locations| {
            pinned = pin_page_of(locations, other, patience, probe);
            match &pinned {
                // A page that a fork has left in two address spaces is one already; and one that has
                // moved to another NUMA node belongs into another tree.
                Ok(other)
                    if other.page.as_raw() == page.as_raw()
                        || by_node && other.page.node() != page.node() =>
                {
                    Verdict::Stop
                }
                Ok(other) => verdict(page, &other.page, page),
                Err(_) => Verdict::Stop,
            }
        });
        match (outcome, pinned) {
            (Outcome::Match(other), Ok(pinned)) => Ok(UnstableResult::Equal(other, pinned)),
            (Outcome::Inserted, _) => Ok(UnstableResult::Waiting),
            (Outcome::Blocked(gone), Err(CannotPin::Gone)) => Err(gone),
            _ => Ok(UnstableResult::Refused),
        }
    }
}

/// Why the page of an item could not be pinned.
enum CannotPin {
    /// The item has no page any more that may be merged.
    Gone,
    /// The mmap lock of its address space could not be had.
    Contended,
}

/// Takes a reference to the page of `item`.
fn pin_page_of(
    locations: &Locations<'_>,
    item: ItemId,
    patience: &mut Patience,
    probe: &mut Candidates,
) -> Result<PinnedEqual, CannotPin> {
    let (slot, address) = locations.of(item).ok_or(CannotPin::Gone)?;
    let mm = user_of(slot.mm()).ok_or(CannotPin::Gone)?;
    let locked = ReadLockedMm::try_new(&mm, patience).ok_or(CannotPin::Contended)?;
    let domain = locations.domain_of(item);
    let vma = locked.mergeable_in(domain, address);
    let vma = vma.ok_or(CannotPin::Gone)?;
    let page = page_at(&vma, address, locations.nodes(), probe);
    drop(locked);
    match page {
        Some(FoundPage::Anonymous(page)) => Ok(PinnedEqual { mm, page }),
        _ => Err(CannotPin::Gone),
    }
}
