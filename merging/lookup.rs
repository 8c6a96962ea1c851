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
        folio::PinnedPage,
        ksm_page::{
            compare::{
                verdict,
                Look, //
            },
            ids::ItemId,
            walk::{
                page_at,
                Candidate,
                Met, //
            }, //
        }, //
    },
    records::waiting::Whereabouts,
    unstable_tree::Outcome, //
};
use kernel::prelude::*;

/// The page of an item, held together with its address space.
pub(super) struct Held {
    pub(super) mm: UserMm,
    pub(super) page: PinnedPage,
}

/// What a page has found in the unstable tree.
pub(super) enum Meeting {
    /// An item whose page is equal.
    Equal(ItemId, Held),
    /// Nothing: its item is in the tree now.
    Waiting,
    /// Nothing, and it could not stay.
    TurnedAway,
}

/// After a glance has misled, so many pages are looked at thoroughly.
const PAGES_TO_DOUBT: u32 = 256;

/// How many pages that are gone a look-up takes out of the unstable tree: more are no accident.
const MOST_GONE: usize = 8;

impl Merging<'_> {
    /// How to look at `page` before a merge is tried.
    ///
    /// A merge that turns out to be none empties a page table entry for nothing, and splits a huge
    /// page. To compare all contents twice costs a quarter of a merge, and nearly all pages of equal
    /// checksums are equal. So pages that would have to be split are looked at thoroughly, and others
    /// for some time after a glance has misled.
    pub(super) fn how_to_look(&mut self, page: &PinnedPage) -> Look {
        let is_doubted = self.state.pages_to_doubt > 0;
        self.state.pages_to_doubt -= u32::from(is_doubted);
        match is_doubted || page.folio().is_large() {
            true => Look::Thorough,
            false => Look::Glance,
        }
    }

    /// Notes that pages were found different that had looked equal.
    pub(super) fn note_misled(&mut self) {
        self.state.pages_to_doubt = PAGES_TO_DOUBT;
    }

    /// Looks in the unstable tree for a page like `page`, whose item waits there if there is none.
    pub(super) fn find_waiting(&mut self, item: ItemId, page: &PinnedPage) -> Meeting {
        for _ in 0..MOST_GONE {
            match self.search_waiting(item, page) {
                Ok(meeting) => return meeting,
                Err(gone) => self.records.leave_tree(gone),
            }
        }
        Meeting::TurnedAway
    }

    /// As [`Merging::find_waiting`], unless an item stands in the way that has no page any more:
    /// then returns that one.
    fn search_waiting(&mut self, item: ItemId, page: &PinnedPage) -> Result<Meeting, ItemId> {
        let by_node = self.records.is_by_node();
        let mut held = Err(NotHeld::Contended);
        let (patience, probe) = (&mut self.state.patience, &mut self.state.probe);
        let outcome = self
            .records
            .search_or_wait(item, page, |other, whereabouts| {
                held = hold(whereabouts, other, patience, probe);
                match &held {
                    // What a fork has left in two address spaces is one page already; and what has
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
        match (outcome, held) {
            (Outcome::Match(other), Ok(held)) => Ok(Meeting::Equal(other, held)),
            (Outcome::Inserted, _) => Ok(Meeting::Waiting),
            (Outcome::Blocked(gone), Err(NotHeld::Gone)) => Err(gone),
            _ => Ok(Meeting::TurnedAway),
        }
    }
}

/// Why the page of an item could not be held.
enum NotHeld {
    /// The item has no page any more that may be merged.
    Gone,
    /// The mmap lock of its address space could not be had.
    Contended,
}

/// Takes a reference to the page of `item`.
fn hold(
    whereabouts: &Whereabouts<'_>,
    item: ItemId,
    patience: &mut Patience,
    probe: &mut KVec<Candidate>,
) -> Result<Held, NotHeld> {
    let (slot, address) = whereabouts.of(item).ok_or(NotHeld::Gone)?;
    let mm = user_of(slot.mm()).ok_or(NotHeld::Gone)?;
    let locked = ReadLockedMm::try_new(&mm, patience).ok_or(NotHeld::Contended)?;
    let vma = locked.mergeable_at(address).ok_or(NotHeld::Gone)?;
    let page = page_at(&vma, address, whereabouts.nodes(), probe);
    drop(locked);
    match page {
        Some(Met::Anonymous(page)) => Ok(Held { mm, page }),
        _ => Err(NotHeld::Gone),
    }
}
