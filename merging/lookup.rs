// SPDX-License-Identifier: GPL-2.0

//! Finding a page's equals, in the trees of the partition that the page belongs to.

#![deny(unsafe_code)]

use crate::{
    containers::{
        pool::Pool,
        rbtree::Verdict,
        sharded_tree::Keyed, //
    },
    ksmd::Ksm,
    mm::{
        address_space::{
            user_of,
            Patience,
            ReadLockedMm,
            UserMm, //
        },
        folio::PinnedPage,
        ksm_page::{
            ids::{
                ItemId,
                NodeId,
                PartitionId, //
            },
            share::KsmPage,
            walk::{
                page_at,
                Candidate,
                Met, //
            }, //
        }, //
    },
    records::stable_node::StableNode,
    rmap_item::{
        RmapItem,
        TrackedMm, //
    },
    scan::Scanner,
    stable_tree::{
        Lookup,
        Reordered,
        StableEntry, //
    },
    unstable_tree::Outcome, //
};
use core::cmp::Ordering;
use kernel::prelude::*;

/// The page of an item, held together with its address space.
pub(crate) struct Held {
    pub(crate) mm: UserMm,
    pub(crate) page: PinnedPage,
}

/// What a page has found in the unstable tree.
pub(crate) enum Meeting {
    /// An item whose page is equal.
    Equal(ItemId, Held),
    /// Nothing: its item is in the tree now.
    Waiting,
    /// Nothing, and it could not stay.
    TurnedAway,
}

/// How contents are compared before a merge is tried.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// If they look equal at a glance, as two pages of the same checksum do, they count as equal: the
    /// merge compares all of them. If not, they are compared at once.
    Glance,
    Thorough,
}

/// What a page has found in the stable tree.
pub(crate) enum Equal {
    /// A node whose page, which comes with it, is equal and may have one more mapping.
    WithRoom(NodeId, KsmPage),
    /// Nodes whose pages are equal, and have as many mappings as they may have.
    Full,
    Missing,
}

/// After a glance has misled, so many pages are looked at thoroughly.
const PAGES_TO_DOUBT: u32 = 256;

/// How many pages that are gone a look-up takes out of the unstable tree: more are no accident.
const MOST_GONE: usize = 8;

impl Scanner {
    /// The partition for `page`.
    pub(crate) fn partition_of(&self, page: &PinnedPage) -> PartitionId {
        self.partitions.of(page)
    }

    /// The last checksum of the page of `item`, which is not merged.
    pub(crate) fn checksum_of(&self, item: ItemId) -> u32 {
        self.unstable_nodes[item].checksum()
    }

    /// How to look at `page` before a merge is tried.
    ///
    /// A merge that turns out to be none empties a page table entry for nothing, and splits a huge
    /// page. To compare all contents twice costs a quarter of a merge, and nearly all pages of equal
    /// checksums are equal. So pages that would have to be split are looked at thoroughly, and others
    /// for some time after a glance has misled.
    pub(crate) fn how_to_look(&mut self, page: &PinnedPage) -> Look {
        let is_doubted = self.pages_to_doubt > 0;
        self.pages_to_doubt -= u32::from(is_doubted);
        match is_doubted || page.folio().is_large() {
            true => Look::Thorough,
            false => Look::Glance,
        }
    }

    /// Notes that pages were found different that had looked equal.
    pub(crate) fn note_misled(&mut self) {
        self.pages_to_doubt = PAGES_TO_DOUBT;
    }

    /// Looks for a KSM page that is equal to `page`, whose checksum is that of `item`; has the CPU
    /// fetch `next` meanwhile.
    ///
    /// The contents are compared as they are: nothing is locked, and `page` may be written.
    pub(crate) fn find_equal(
        &mut self,
        ksm: &Ksm,
        item: ItemId,
        (page, next): (&PinnedPage, &PinnedPage),
        look: Look,
    ) -> Equal {
        let checksum = self.checksum_of(item);
        let partition = self.partition_of(page);
        loop {
            let mut equal = None;
            let stable = &self.partitions.get(partition).stable;
            let found = stable.find(&self.nodes, checksum, |_, node| {
                let (verdict, ksm_page) = node_verdict(page, node, next, look);
                equal = ksm_page;
                verdict
            });
            match (found, equal) {
                (Lookup::Stale(node), _) => self.remove_stale(ksm, node),
                (Lookup::Match(first), _) if self.replace_in_partition(ksm, first) => {}
                (Lookup::Match(first), Some(equal)) if self.nodes[first].has_room() => {
                    return Equal::WithRoom(first, equal);
                }
                // Those behind the first have no room either.
                (Lookup::Match(_), _) => return Equal::Full,
                (Lookup::Missing, _) => return Equal::Missing,
            }
        }
    }

    /// Puts `node`, whose page is `page`, into the stable tree.
    pub(crate) fn insert_node(&mut self, ksm: &Ksm, node: NodeId, page: &PinnedPage) {
        let partition = self.nodes[node].partition();
        loop {
            let stable = &mut self.partitions.get(partition).stable;
            match stable.insert(&mut self.nodes, node, |_, other| {
                node_verdict(page, other, page, Look::Thorough).0
            }) {
                Ok(()) => break,
                Err(stale) => self.remove_stale(ksm, stale),
            }
        }
        self.note_chains(ksm);
    }

    /// Restores the order of the chain of `node`, after it got room for another mapping or lost it.
    pub(crate) fn reorder_chain(&mut self, ksm: &Ksm, node: NodeId) {
        let partition = self.nodes[node].partition();
        let stable = &mut self.partitions.get(partition).stable;
        if stable.reorder(&mut self.nodes, node) == Reordered::Done {
            return;
        }
        match self.nodes[node].anchor.as_deref().map(KsmPage::of) {
            Some(Ok(page)) => {
                self.remove_from_tree(ksm, node, partition);
                self.insert_node(ksm, node, page.page());
            }
            _ => self.remove_stale(ksm, node),
        }
    }

    /// Looks in the unstable tree for a page like `page`, whose item goes there if there is none.
    pub(crate) fn find_unstable(&mut self, ksm: &Ksm, item: ItemId, page: &PinnedPage) -> Meeting {
        for _ in 0..MOST_GONE {
            match self.search_unstable(item, page) {
                Ok(meeting) => return meeting,
                Err(gone) => self.leave_tree(ksm, gone),
            }
        }
        Meeting::TurnedAway
    }

    /// As [`Scanner::find_unstable`], unless an item stands in the way that has no page any more:
    /// then returns that one.
    fn search_unstable(&mut self, item: ItemId, page: &PinnedPage) -> Result<Meeting, ItemId> {
        let partition = self.partition_of(page);
        let by_node = self.partitions.by_node();
        let mut held = Err(NotHeld::Contended);
        let Self {
            partitions,
            items,
            mms,
            nodes,
            unstable_nodes,
            probe,
            patience,
            ..
        } = self;
        let unstable = &mut partitions.get(partition).unstable;
        let outcome = unstable.search_or_insert(unstable_nodes, item, |other, _| {
            held = hold(mms, nodes, probe, patience, &items[other]);
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

    /// Puts `node` where it belongs if its page has moved to another NUMA node; returns whether.
    pub(crate) fn replace_in_partition(&mut self, ksm: &Ksm, node: NodeId) -> bool {
        if !self.partitions.by_node() {
            return false;
        }
        let page = self.nodes[node].anchor.as_ref().map(|anchor| anchor.page());
        let Some(Ok(page)) = page else {
            return false;
        };
        let (old, new) = (self.nodes[node].partition(), self.partition_of(&page));
        if old == new {
            return false;
        }
        self.remove_from_tree(ksm, node, old);
        if let Some(anchor) = &self.nodes[node].anchor {
            anchor.notes.set_partition(new);
        }
        self.insert_node(ksm, node, &page);
        true
    }
}

/// Where `page` stands, seen from a page with the same checksum; has the CPU fetch `next` meanwhile.
fn verdict(page: &PinnedPage, other: &PinnedPage, next: &PinnedPage) -> Verdict {
    match page.compare(other, next) {
        Ordering::Less => Verdict::Before,
        Ordering::Equal => Verdict::Match,
        Ordering::Greater => Verdict::After,
    }
}

/// As [`verdict`], seen from the page of `node`, which comes with it.
fn node_verdict(
    page: &PinnedPage,
    node: &StableNode,
    next: &PinnedPage,
    look: Look,
) -> (Verdict, Option<KsmPage>) {
    let Some(Ok(other)) = node.anchor.as_deref().map(KsmPage::of) else {
        return (Verdict::Stop, None);
    };
    // Without a content that could be compared it has a place in the tree still.
    let verdict = match page.is_poisoned() || other.page().is_poisoned() {
        true => Verdict::Before,
        false if look == Look::Glance && page.looks_like(other.page()) => Verdict::Match,
        false => verdict(page, other.page(), next),
    };
    (verdict, Some(other))
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
    mms: &Pool<TrackedMm>,
    nodes: &Pool<StableNode>,
    probe: &mut KVec<Candidate>,
    patience: &mut Patience,
    item: &RmapItem,
) -> Result<Held, NotHeld> {
    let slot = item.mm().and_then(|mm| mms[mm].slot());
    let mm = slot.and_then(|slot| user_of(slot.mm()));
    let mm = mm.ok_or(NotHeld::Gone)?;
    let address = item.address();
    let locked = ReadLockedMm::try_new(&mm, patience).ok_or(NotHeld::Contended)?;
    let vma = locked.mergeable_at(address).ok_or(NotHeld::Gone)?;
    let page = page_at(&vma, address, nodes, probe);
    drop(locked);
    match page {
        Some(Met::Anonymous(page)) => Ok(Held { mm, page }),
        _ => Err(NotHeld::Gone),
    }
}
