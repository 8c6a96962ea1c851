// SPDX-License-Identifier: GPL-2.0

//! One KSM page, as `ksmd` sees it, and its mappings, as a reverse-mapping walk sees them.

#![deny(unsafe_code)]

use crate::{
    forest::Keyed,
    mm::{
        anon_vma::AnonVma,
        ksm_folio::OwnedAnchor,
        vma::MergeableVma, //
    },
    partition::PartitionId,
    pool::Handle,
    rbtree::{
        Links,
        TreeNode, //
    },
    rmap_item::RmapItem,
    stable_tree::{
        Siblings,
        StableEntry, //
    }, //
};

/// Where a KSM page is mapped; enough to find the page table entry, and those of forks.
pub(crate) struct Mapping {
    pub(crate) anon_vma: AnonVma,
    /// The index of the page in the anon_vma's tree of vmas.
    pub(crate) index: usize,
    pub(crate) address: usize,
    /// The address space, to be compared only.
    pub(crate) mm: usize,
    /// Whose mapping it is.
    pub(crate) item: Handle<RmapItem>,
}

impl Mapping {
    /// The mapping of `item` at `address` of `vma`.
    pub(crate) fn new(vma: &MergeableVma<'_>, address: usize, item: Handle<RmapItem>) -> Self {
        Self {
            anon_vma: vma.anon_vma(),
            index: vma.linear_index(address),
            address,
            mm: vma.mm_raw() as usize,
            item,
        }
    }
}

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
