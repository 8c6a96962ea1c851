// SPDX-License-Identifier: GPL-2.0

//! Finding a page's equals, in the trees of the partition that the page belongs to.

#![deny(unsafe_code)]

use crate::{
    control::Ksm,
    forest::Keyed,
    mm::{
        address_space::{
            user_of,
            Patience,
            ReadLockedMm,
            UserMm, //
        },
        folio::PinnedPage,
        walk::{
            page_at,
            Candidate,
            Met, //
        }, //
    },
    partition::PartitionId,
    pool::Pool,
    rbtree::Verdict,
    rmap_item::{
        RmapItem,
        TrackedMm, //
    },
    scan::Scanner,
    stable_node::StableNode,
    stable_tree::{
        Lookup,
        StableTree, //
    },
    table::Handle,
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
    Equal(Handle<RmapItem>, Held),
    /// Nothing: its item is in the tree now.
    Waiting,
    /// Nothing, and it could not stay.
    TurnedAway,
}

/// How many pages that are gone a look-up takes out of the unstable tree: more are no accident.
const MOST_GONE: usize = 8;

/// What decides whether a node has the content of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Their checksums: good enough for a merge to be tried, which compares contents in any case.
    Checksum,
    Content,
}

impl Scanner {
    /// The partition for `page`.
    pub(crate) fn partition_of(&self, page: &PinnedPage) -> PartitionId {
        self.partitions.of(page)
    }

    /// The last checksum of the page of `item`, which is not merged.
    pub(crate) fn checksum_of(&self, item: Handle<RmapItem>) -> u32 {
        self.unstable_nodes[item.node()].checksum()
    }

    /// A node with the content of `page`, whose checksum is that of `item`, that may have one more
    /// mapping.
    pub(crate) fn find_with_room(
        &mut self,
        ksm: &Ksm,
        item: Handle<RmapItem>,
        page: &PinnedPage,
        by: By,
    ) -> Option<Handle<StableNode>> {
        let limit = ksm.tunables.max_page_sharing.get();
        loop {
            let first = self.find_stable(ksm, item, page, by)?;
            let node = StableTree::first_that(&self.nodes, first, |node| node.has_room(limit))?;
            // Of a chain only the first one is known to be on the NUMA node of `page` still.
            if node == first || !self.replace_in_partition(ksm, node) {
                return Some(node);
            }
        }
    }

    /// The first node with the content of `page`, whose checksum is that of `item`.
    fn find_stable(
        &mut self,
        ksm: &Ksm,
        item: Handle<RmapItem>,
        page: &PinnedPage,
        by: By,
    ) -> Option<Handle<StableNode>> {
        let checksum = self.checksum_of(item);
        let partition = self.partition_of(page);
        loop {
            let stable = &self.partitions.get(partition).stable;
            let found = stable.find(&self.nodes, checksum, |_, node| match by {
                By::Checksum => Verdict::Match,
                By::Content => node_verdict(page, node),
            });
            match found {
                Lookup::Match(first) if self.replace_in_partition(ksm, first) => {}
                Lookup::Match(first) if self.prune_chain(ksm, first) => {}
                Lookup::Match(first) => return Some(first),
                Lookup::Missing => return None,
                Lookup::Stale(node) => self.remove_stale(ksm, node),
            }
        }
    }

    /// Puts `node`, whose page is `page`, into the stable tree.
    pub(crate) fn insert_node(&mut self, ksm: &Ksm, node: Handle<StableNode>, page: &PinnedPage) {
        let partition = self.nodes[node].partition();
        loop {
            let stable = &mut self.partitions.get(partition).stable;
            match stable.insert(&mut self.nodes, node, |_, other| node_verdict(page, other)) {
                Ok(()) => break,
                Err(stale) => self.remove_stale(ksm, stale),
            }
        }
        self.note_chains(ksm);
    }

    /// Looks in the unstable tree for a page like `page`, whose item goes there if there is none.
    pub(crate) fn find_unstable(
        &mut self,
        ksm: &Ksm,
        item: Handle<RmapItem>,
        page: &PinnedPage,
    ) -> Meeting {
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
    fn search_unstable(
        &mut self,
        item: Handle<RmapItem>,
        page: &PinnedPage,
    ) -> Result<Meeting, Handle<RmapItem>> {
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
        let outcome = unstable.search_or_insert(unstable_nodes, item.node(), |other, _| {
            held = hold(mms, nodes, probe, patience, &items[other.item()]);
            match &held {
                // What a fork has left in two address spaces is one page already; and what has
                // moved to another NUMA node belongs into another tree.
                Ok(other)
                    if other.page.as_raw() == page.as_raw()
                        || by_node && other.page.node() != page.node() =>
                {
                    Verdict::Stop
                }
                Ok(other) => verdict(page, &other.page),
                Err(_) => Verdict::Stop,
            }
        });
        match (outcome, held) {
            (Outcome::Match(other), Ok(held)) => Ok(Meeting::Equal(other.item(), held)),
            (Outcome::Inserted, _) => Ok(Meeting::Waiting),
            (Outcome::Blocked(gone), Err(NotHeld::Gone)) => Err(gone.item()),
            _ => Ok(Meeting::TurnedAway),
        }
    }

    /// Puts `node` where it belongs if its page has moved to another NUMA node; returns whether.
    pub(crate) fn replace_in_partition(&mut self, ksm: &Ksm, node: Handle<StableNode>) -> bool {
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

    /// Removes stale nodes from the chain that begins with `first`, if that was not done for some
    /// time; returns whether there were any.
    fn prune_chain(&mut self, ksm: &Ksm, first: Handle<StableNode>) -> bool {
        let mut next = StableTree::next_in_chain(&self.nodes, first);
        if next.is_none() {
            return false;
        }
        let now = self.now();
        let Some(anchor) = &self.nodes[first].anchor else {
            return false;
        };
        if anchor.notes.since_pruned(now) < ksm.tunables.chains_prune_millisecs.get() {
            return false;
        }
        anchor.notes.set_pruned(now);
        let mut any = false;
        while let Some(node) = next {
            next = StableTree::next_in_chain(&self.nodes, node);
            if matches!(&self.nodes[node].anchor, Some(anchor) if anchor.page().is_err()) {
                self.remove_stale(ksm, node);
                any = true;
            }
            crate::kthread::cond_resched();
        }
        any
    }
}

/// Where `page` stands, seen from a page with the same checksum.
fn verdict(page: &PinnedPage, other: &PinnedPage) -> Verdict {
    match page.compare(other) {
        Ordering::Less => Verdict::Before,
        Ordering::Equal => Verdict::Match,
        Ordering::Greater => Verdict::After,
    }
}

fn node_verdict(page: &PinnedPage, node: &StableNode) -> Verdict {
    match node.anchor.as_ref().map(|anchor| anchor.page()) {
        // It has no content that could be compared, but its place in the tree.
        Some(Ok(other)) if other.is_poisoned() => Verdict::Before,
        Some(Ok(other)) => verdict(page, &other),
        _ => Verdict::Stop,
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
