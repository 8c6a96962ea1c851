// SPDX-License-Identifier: GPL-2.0

//! One KSM page, as `ksmd` sees it.

#![deny(unsafe_code)]

use crate::{
    forest::Keyed,
    mm::ksm_folio::{
        Anchor,
        OwnedAnchor, //
    },
    partition::PartitionId,
    rbtree::{
        Links,
        TreeNode, //
    },
    stable_tree::{
        Siblings,
        StableEntry, //
    },
    table::{
        per_page,
        raw_or_zero,
        Handle,
        Stored, //
    }, //
};
use kernel::{
    alloc::allocator::Kmalloc,
    bindings,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// A node of the stable tree: what a search needs, in 24 bytes.
#[derive(Default)]
pub(crate) struct StableNode {
    links: Links,
    checksum: u32,
    /// The tie to the folio; missing only while the node is made.
    pub(crate) anchor: Option<OwnedAnchor>,
}

impl Stored for StableNode {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Kmalloc;
}

const _: () = assert!(size_of::<StableNode>() == 24);

impl StableNode {
    pub(crate) fn new(checksum: u32) -> Self {
        Self {
            checksum,
            ..Self::default()
        }
    }

    /// The partition in whose tree the node is.
    pub(crate) fn partition(&self) -> PartitionId {
        self.anchor
            .as_ref()
            .map_or(PartitionId::default(), |anchor| anchor.notes.partition())
    }

    /// Whether `anchor` is the node's.
    pub(crate) fn has(&self, anchor: &Anchor) -> bool {
        self.anchor
            .as_deref()
            .is_some_and(|its| core::ptr::eq(its, anchor))
    }

    /// Whether one more mapping may join.
    ///
    /// A page that has no mapping left will soon be freed, and is not worth joining.
    pub(crate) fn has_room(&self, max_page_sharing: usize) -> bool {
        let anchor = self.anchor.as_ref();
        anchor.is_some_and(|anchor| anchor.notes.have_room(max_page_sharing))
    }
}

/// What else `ksmd`, and nobody else, knows of a node; it stands in the anchor, in the 12 bytes that
/// are left there.
pub(crate) struct Notes {
    /// How many mappings there are: what the list behind the folio's lock has; and in the top bits
    /// the partition.
    mappings_and_partition: Atomic<u32>,
    /// The neighbours in the node's chain, or zeros. A node that is the first of a chain, or was,
    /// has with [`Notes::FIRST`] the time when the chain was last searched for stale nodes.
    siblings: [Atomic<u32>; 2],
}

impl Notes {
    /// So many mappings and more are not told apart.
    const MOST_MAPPINGS: u32 = (1 << Self::PARTITION_SHIFT) - 1;
    const PARTITION_SHIFT: u32 = 20;

    /// No handle has this bit.
    const FIRST: u32 = 1 << 31;

    /// Notes of a node in the tree of `partition`.
    pub(crate) fn new(partition: PartitionId) -> Self {
        let notes = Self {
            mappings_and_partition: Atomic::new(0),
            siblings: [Atomic::new(0), Atomic::new(0)],
        };
        notes.set_partition(partition);
        notes
    }

    /// The partition in whose tree the node is.
    pub(crate) fn partition(&self) -> PartitionId {
        PartitionId::from_raw(self.mappings_and_partition.load(Relaxed) >> Self::PARTITION_SHIFT)
    }

    pub(crate) fn set_partition(&self, partition: PartitionId) {
        let mappings = self.mappings_and_partition.load(Relaxed) & Self::MOST_MAPPINGS;
        self.mappings_and_partition
            .store(partition.raw() << Self::PARTITION_SHIFT | mappings, Relaxed);
    }

    /// Notes how many mappings there are.
    pub(crate) fn set_mappings(&self, count: usize) {
        let count = count.min(Self::MOST_MAPPINGS as usize) as u32;
        let partition = self.mappings_and_partition.load(Relaxed) & !Self::MOST_MAPPINGS;
        self.mappings_and_partition
            .store(partition | count, Relaxed);
    }

    /// Whether there is a mapping, and one more would be within the limit.
    fn have_room(&self, max_page_sharing: usize) -> bool {
        let count = self.mappings_and_partition.load(Relaxed) & Self::MOST_MAPPINGS;
        (1..max_page_sharing.min(Self::MOST_MAPPINGS as usize)).contains(&(count as usize))
    }

    /// When the chain that begins with the node was last searched for stale nodes: the 31 lowest
    /// bits.
    fn pruned(&self) -> u32 {
        let [prev, _] = &self.siblings;
        match prev.load(Relaxed) {
            pruned if pruned & Self::FIRST != 0 => pruned & !Self::FIRST,
            _ => 0,
        }
    }

    /// How long ago that was.
    pub(crate) fn since_pruned(&self, now: u32) -> usize {
        (now.wrapping_sub(self.pruned()) & !Self::FIRST) as usize
    }

    /// Notes that the chain that begins with the node has been searched for stale nodes.
    pub(crate) fn set_pruned(&self, now: u32) {
        let [pruned, _] = &self.siblings;
        pruned.store(now | Self::FIRST, Relaxed);
    }

    fn siblings(&self) -> Siblings<StableNode> {
        let [prev, next] = self
            .siblings
            .each_ref()
            .map(|sibling| sibling.load(Relaxed));
        Siblings {
            prev: Handle::from_raw(prev).filter(|_| prev & Self::FIRST == 0),
            next: Handle::from_raw(next),
        }
    }

    fn set_siblings(&self, siblings: Siblings<StableNode>) {
        let [prev, next] = &self.siblings;
        let stays_first = siblings.prev.is_none() && prev.load(Relaxed) & Self::FIRST != 0;
        if !stays_first {
            prev.store(raw_or_zero(siblings.prev), Relaxed);
        }
        next.store(raw_or_zero(siblings.next), Relaxed);
    }
}

// NUMA nodes are numbered below 2^10 on all architectures.
const _: () = assert!(bindings::MAX_NUMNODES <= 1 << (u32::BITS - Notes::PARTITION_SHIFT));

impl TreeNode for StableNode {
    fn links(&self) -> Links {
        self.links
    }

    fn set_links(&mut self, links: Links) {
        self.links = links;
    }
}

impl Keyed for StableNode {
    fn checksum(&self) -> u32 {
        self.checksum
    }
}

impl StableEntry for StableNode {
    fn siblings(&self) -> Siblings<Self> {
        self.anchor
            .as_ref()
            .map_or_else(Siblings::default, |anchor| anchor.notes.siblings())
    }

    fn set_siblings(&mut self, siblings: Siblings<Self>) {
        if let Some(anchor) = &self.anchor {
            anchor.notes.set_siblings(siblings);
        }
    }

    fn pruned(&self) -> u32 {
        self.anchor
            .as_ref()
            .map_or(0, |anchor| anchor.notes.pruned())
    }

    fn set_pruned(&mut self, now: u32) {
        if let Some(anchor) = &self.anchor {
            anchor.notes.set_pruned(now);
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_stable_node)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_kept_apart() {
        let notes = Notes::new(PartitionId::from_raw(1023));
        for count in [0, 1, 2, 255, 256, 1 << 19, (1 << 20) - 2] {
            notes.set_mappings(count);
            assert_eq!(notes.have_room(count + 1), count > 0);
            assert!(!notes.have_room(count));
            for partition in [0, 1023, 5] {
                notes.set_partition(PartitionId::from_raw(partition));
                assert_eq!(notes.partition(), PartitionId::from_raw(partition));
                assert_eq!(notes.have_room(count + 1), count > 0);
            }
        }
    }

    #[test]
    fn who_has_too_many_mappings_to_count_has_no_room() {
        let notes = Notes::new(PartitionId::default());
        for count in [(1 << 20) - 1, 1 << 20, 1 << 30] {
            notes.set_mappings(count);
            assert!(!notes.have_room(usize::MAX));
            assert_eq!(notes.partition(), PartitionId::default());
        }
    }

    #[test]
    fn the_first_of_a_chain_knows_when_it_was_pruned() {
        let notes = Notes::new(PartitionId::default());
        let (a, b) = (Handle::from_raw(7), Handle::from_raw((1 << 31) - 1));
        let is = |prev, next| {
            let siblings = notes.siblings();
            siblings.prev == prev && siblings.next == next
        };
        let set = |prev, next| notes.set_siblings(Siblings { prev, next });
        assert!(is(None, None) && notes.since_pruned(5) == 5);
        set(None, a);
        for now in [10, u32::MAX, 1 << 31] {
            notes.set_pruned(now);
            assert!(is(None, a) && notes.since_pruned(now.wrapping_add(3)) == 3);
        }
        // It stays the first, before another.
        set(None, b);
        assert!(is(None, b) && notes.since_pruned((1 << 31) + 9) == 9);
        set(a, b);
        assert!(is(a, b));
        // What is first again was not pruned as such.
        set(None, b);
        assert!(is(None, b) && notes.since_pruned(1000) == 1000);
    }
}
