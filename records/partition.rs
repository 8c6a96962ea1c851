// SPDX-License-Identifier: GPL-2.0

//! The trees, one pair for each set of pages that may be merged with each other.
//!
//! There is one set, or, with `merge_across_nodes` 0, one for each NUMA node.

#![deny(unsafe_code)]

use crate::{
    containers::{
        handle_table::Table,
        pool::Pool, //
    },
    mm::{
        ksm_page::ids::{
            ItemId,
            PartitionId, //
        },
        page::Page, //
    },
    records::{
        stable_node::StableNode,
        unstable_node::UnstableNode, //
    },
    stable_tree::{
        Siblings,
        StableEntry,
        StableTree, //
    },
    unstable_tree::UnstableTree, //
};
use kernel::prelude::*;

/// The trees of one set of pages.
pub(crate) struct Partition {
    pub(crate) stable: StableTree<StableNode>,
    pub(crate) unstable: UnstableTree<UnstableNode>,
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

    /// The partition for `page`, where it is now.
    pub(crate) fn of(&self, page: &Page) -> PartitionId {
        PartitionId::from_raw(match self.by_node() {
            true => page.node() as u32,
            false => 0,
        })
    }

    /// The trees of a partition.
    pub(crate) fn trees(&self, id: PartitionId) -> &Partition {
        &self.partitions[id.raw() as usize]
    }

    /// As [`Partitions::trees`], to be changed.
    pub(crate) fn get(&mut self, id: PartitionId) -> &mut Partition {
        &mut self.partitions[id.raw() as usize]
    }

    /// Takes `item` out of the unstable tree that it is in.
    pub(super) fn remove_unstable(&mut self, nodes: &mut Table<UnstableNode>, item: ItemId) {
        // A node has no room for the name of its partition.
        let last = self.partitions.len() - 1;
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            if index == last || partition.unstable.contains(nodes, item) {
                partition.unstable.remove(nodes, item);
                return;
            }
        }
    }

    /// Forgets all unstable trees; no item may go on to stand in one.
    pub(crate) fn forget_unstable(&mut self) {
        for partition in &mut self.partitions {
            partition.unstable.forget();
        }
    }

    /// Forgets all stable trees; the `nodes` wait to be inserted anew.
    pub(crate) fn forget_stable(&mut self, nodes: &mut Pool<StableNode>) {
        if self.count_chains() != (0, 0) {
            nodes.for_each_mut(|node| node.set_siblings(Siblings::default()));
        }
        for partition in &mut self.partitions {
            partition.stable.forget();
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

#[kernel::macros::kunit_tests(ksm_rs_partition)]
mod tests {
    use super::*;
    use crate::{
        containers::rbtree::Verdict,
        rmap_item::RmapItem,
        unstable_tree::Outcome, //
    };

    struct Fixture {
        items: Pool<RmapItem>,
        nodes: Table<UnstableNode>,
        partitions: Partitions,
    }

    impl Fixture {
        fn new(partitions: usize) -> Result<Self> {
            Ok(Self {
                items: Pool::new(),
                nodes: Table::new(),
                partitions: Partitions::new(partitions)?,
            })
        }

        /// A new item of that checksum, which no other has.
        fn wait_in(&mut self, partition: u32, checksum: u32) -> Result<ItemId> {
            let item = self.items.insert(RmapItem::default(), GFP_KERNEL)?;
            let node = item;
            self.nodes
                .put(node, UnstableNode::new(checksum), GFP_KERNEL)?;
            let unstable = &mut self
                .partitions
                .get(PartitionId::from_raw(partition))
                .unstable;
            let outcome = unstable.search_or_insert(&mut self.nodes, node, |_, _| Verdict::Match);
            assert!(matches!(outcome, Outcome::Inserted));
            self.items[item].note_waiting();
            Ok(item)
        }

        fn leave(&mut self, item: ItemId) {
            self.partitions.remove_unstable(&mut self.nodes, item);
            self.nodes.remove(item);
        }
    }

    #[test]
    fn an_item_leaves_the_tree_that_it_is_in() -> Result {
        let mut fixture = Fixture::new(3)?;
        let mut waiting = KVec::new();
        for checksum in 0..60 {
            waiting.push(fixture.wait_in(checksum % 3, checksum)?, GFP_KERNEL)?;
        }
        for item in waiting {
            fixture.leave(item);
        }
        // There is room for all of them again.
        for checksum in 0..60 {
            fixture.wait_in(checksum % 3, checksum)?;
        }
        Ok(())
    }
}
