// SPDX-License-Identifier: GPL-2.0

//! One KSM page, as `ksmd` sees it.

#![deny(unsafe_code)]

use crate::{
    forest::Keyed,
    mm::ksm_folio::OwnedAnchor,
    partition::PartitionId,
    rbtree::{
        Links,
        TreeNode, //
    },
    stable_tree::{
        Siblings,
        StableEntry, //
    }, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A node of the stable tree: what a search needs, in 32 bytes.
#[derive(Default)]
pub(crate) struct StableNode {
    links: Links,
    siblings: Siblings<StableNode>,
    checksum: u32,
    /// The tie to the folio; missing only while the node is made or taken down.
    pub(crate) anchor: Option<OwnedAnchor>,
}

const _: () = assert!(size_of::<StableNode>() == 32);

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

    /// Whether one more mapping may join.
    ///
    /// A page that has no mapping left will soon be freed, and is not worth joining.
    pub(crate) fn has_room(&self, max_page_sharing: usize) -> bool {
        self.anchor.as_ref().is_some_and(|anchor| {
            (1..max_page_sharing).contains(&(anchor.notes.mappings.load(Relaxed) as usize))
        })
    }
}

/// What else `ksmd`, and nobody else, knows of a node; it stands in the anchor, where there is
/// room.
pub(crate) struct Notes {
    partition: Atomic<u32>,
    /// When the chain that the node is the first of was last searched for stale nodes, in
    /// milliseconds.
    pub(crate) pruned: Atomic<u32>,
    /// How many mappings there are: what the list behind the folio's lock has.
    pub(crate) mappings: Atomic<u32>,
}

impl Notes {
    /// Notes of a node in the tree of `partition`.
    pub(crate) fn new(partition: PartitionId) -> Self {
        let notes = Self {
            partition: Atomic::new(0),
            pruned: Atomic::new(0),
            mappings: Atomic::new(0),
        };
        notes.set_partition(partition);
        notes
    }

    /// The partition in whose tree the node is.
    pub(crate) fn partition(&self) -> PartitionId {
        PartitionId::from_raw(self.partition.load(Relaxed))
    }

    pub(crate) fn set_partition(&self, partition: PartitionId) {
        self.partition.store(partition.raw(), Relaxed);
    }
}

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
        self.siblings
    }

    fn set_siblings(&mut self, siblings: Siblings<Self>) {
        self.siblings = siblings;
    }
}
