// SPDX-License-Identifier: GPL-2.0

//! The trees, one pair for each set of pages that may be merged with each other.
//!
//! There is one set, or, with `merge_across_nodes` 0, one for each NUMA node.

#![deny(unsafe_code)]

use crate::{
    pool::{
        Handle,
        Pool, //
    },
    rmap_item::RmapItem,
    stable_node::StableNode,
    stable_tree::StableTree,
    unstable_tree::UnstableTree, //
};
use kernel::prelude::*;

/// The name of a [`Partition`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct PartitionId(u32);

impl PartitionId {
    /// Undoes [`PartitionId::raw`].
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The name as a number.
    pub(crate) fn raw(self) -> u32 {
        self.0
    }
}

/// The trees of one set of pages.
pub(crate) struct Partition {
    pub(crate) stable: StableTree<StableNode>,
    pub(crate) unstable: UnstableTree<RmapItem>,
}

/// All partitions.
pub(crate) struct Partitions {
    partitions: KVec<Partition>,
}

impl Partitions {
    /// `count` partitions with nothing in them.
    pub(crate) fn new(count: usize) -> Result<Self> {
        let mut partitions = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let partition = Partition {
                stable: StableTree::new()?,
                unstable: UnstableTree::new()?,
            };
            partitions.push(partition, GFP_KERNEL)?;
        }
        Ok(Self { partitions })
    }

    /// Whether it matters on which NUMA node a page is.
    pub(crate) fn by_node(&self) -> bool {
        self.partitions.len() > 1
    }

    /// The partition for pages of a NUMA node.
    pub(crate) fn of_node(&self, node: i32) -> PartitionId {
        match self.by_node() {
            true => PartitionId(node as u32),
            false => PartitionId(0),
        }
    }

    pub(crate) fn get(&mut self, id: PartitionId) -> &mut Partition {
        &mut self.partitions[id.0 as usize]
    }

    /// Takes `item` out of the unstable tree that it is in.
    pub(crate) fn remove_unstable(&mut self, items: &mut Pool<RmapItem>, item: Handle<RmapItem>) {
        // An item has no room for the name of its partition.
        let last = self.partitions.len() - 1;
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            if index == last || partition.unstable.contains(items, item) {
                partition.unstable.remove(items, item);
                return;
            }
        }
    }

    /// Forgets all unstable trees; about `expected` items are to come.
    pub(crate) fn forget_unstable(&mut self, expected: usize) {
        let each = expected.div_ceil(self.partitions.len());
        for partition in &mut self.partitions {
            partition.unstable.forget(each);
        }
    }

    /// Makes all stable trees fit the number of their nodes, where there is memory for it.
    pub(crate) fn fit_stable(&mut self, nodes: &mut Pool<StableNode>) {
        for partition in &mut self.partitions {
            // The tree is as good as it was.
            let _ = partition.stable.fit(nodes);
        }
    }

    /// How many contents have more than one node, and how many nodes those have.
    pub(crate) fn count_chains(&self) -> (usize, usize) {
        self.partitions
            .iter()
            .fold((0, 0), |(chains, dups), partition| {
                let (more_chains, more_dups) = partition.stable.count_chains();
                (chains + more_chains, dups + more_dups)
            })
    }
}
