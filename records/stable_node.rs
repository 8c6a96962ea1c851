// SPDX-License-Identifier: GPL-2.0

//! One KSM page, as `ksmd` sees it.

#![deny(unsafe_code)]

use crate::{
    containers::{
        handle::Named,
        handle_table::{
            per_page,
            Stored, //
        },
        pool::Pool,
        rbtree::{
            Links,
            TreeNode, //
        },
        sharded_tree::Keyed, //
    },
    mm::ksm_page::{
        ids::{
            Node,
            PartitionId, //
        },
        ksm_folio::{
            Anchor,
            AnchorOwner,
            OwnedAnchor, //
        }, //
    },
    stable_tree::{
        Siblings,
        StableEntry, //
    }, //
};
use kernel::alloc::allocator::Kmalloc;

/// A node of the stable tree: what a search needs, in 24 bytes.
#[derive(Default)]
pub(crate) struct StableNode {
    links: Links,
    checksum: u32,
    /// The tie to the folio; missing only while the node is made.
    pub(crate) anchor: Option<OwnedAnchor>,
}

impl Named for StableNode {
    type Name = Node;
}

impl Stored for StableNode {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Kmalloc;
}

const _: () = assert!(size_of::<StableNode>() == 24);

/// There is one pool of nodes as long as the module is loaded.
impl AnchorOwner for Pool<StableNode> {}

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
            .map_or(PartitionId::default(), |anchor| anchor.state.partition())
    }

    /// Gives the node, which is in no tree, the checksum that `f` makes of its own.
    pub(crate) fn translate(&mut self, f: impl FnOnce(u32) -> u32) {
        self.checksum = f(self.checksum);
    }

    /// Whether `anchor` is the node's.
    pub(crate) fn has(&self, anchor: &Anchor) -> bool {
        self.anchor
            .as_deref()
            .is_some_and(|its| core::ptr::eq(its, anchor))
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
    fn siblings(&self) -> Siblings<Node> {
        self.anchor
            .as_ref()
            .map_or_else(Siblings::default, |anchor| anchor.state.siblings())
    }

    fn set_siblings(&mut self, siblings: Siblings<Node>) {
        if let Some(anchor) = &self.anchor {
            anchor.state.set_siblings(siblings);
        }
    }

    fn has_room(&self) -> bool {
        self.anchor
            .as_ref()
            .is_some_and(|anchor| anchor.state.has_room())
    }
}
