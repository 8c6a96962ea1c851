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

/// A node of the stable tree.
#[derive(Default)]
pub(crate) struct StableNode {
    links: Links,
    siblings: Siblings<StableNode>,
    checksum: u32,
    /// The partition in whose tree the node is.
    pub(crate) partition: PartitionId,
    /// When the chain that the node is the first of was last searched for stale nodes, in
    /// milliseconds.
    pub(crate) pruned: u32,
    /// How many mappings there are: what the list behind the folio's lock has.
    pub(crate) mappings: u32,
    /// The tie to the folio; missing only while the node is made or taken down.
    pub(crate) anchor: Option<OwnedAnchor>,
}

impl StableNode {
    pub(crate) fn new(checksum: u32, partition: PartitionId) -> Self {
        Self {
            checksum,
            partition,
            ..Self::default()
        }
    }

    /// Whether one more mapping may join.
    ///
    /// A page that has no mapping left will soon be freed, and is not worth joining.
    pub(crate) fn has_room(&self, max_page_sharing: usize) -> bool {
        (1..max_page_sharing).contains(&(self.mappings as usize))
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
