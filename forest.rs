// SPDX-License-Identifier: GPL-2.0

//! Many small red-black trees that are searched as one.
//!
//! The top bits of a checksum choose the tree. There are about as many trees as nodes, so that a
//! search meets one or two nodes, each of which is a cache miss, where one tree of all would have
//! dozens.

#![deny(unsafe_code)]

use crate::{
    mm::prefetch::prefetch,
    rbtree::{
        Descent,
        Root,
        TreeNode,
        Vacancy,
        Values,
        Verdict, //
    }, //
    table::Handle,
};
use core::cmp::Ordering;
use kernel::prelude::*;

/// Trees of a forest that is next to empty.
const FEWEST: usize = 256;

/// A tree node that has the checksum of a page's content.
pub(crate) trait Keyed: TreeNode {
    /// The checksum; may not change while the node is in a tree.
    fn checksum(&self) -> u32;
}

/// See the [module's description](self).
pub(crate) struct Forest<T> {
    /// A power of two of them.
    roots: KVVec<Root<T>>,
    /// Nodes in all the trees.
    len: usize,
}

impl<T: Keyed> Forest<T> {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            roots: bare(0)?,
            len: 0,
        })
    }

    /// Asks the CPU to fetch what a search for `checksum` begins with.
    #[inline]
    pub(crate) fn prefetch_root(&self, checksum: u32) {
        prefetch(self.root(checksum));
    }

    /// Asks the CPU to fetch the first node that a search for `checksum` will meet.
    #[inline]
    pub(crate) fn prefetch_top(&self, pool: &impl Values<T>, checksum: u32) {
        if let Some(top) = self.root(checksum).top() {
            prefetch(&pool[top]);
        }
    }

    /// Searches by checksum, and asks `compare` only where checksums are equal.
    #[inline]
    pub(crate) fn descend(
        &self,
        pool: &impl Values<T>,
        checksum: u32,
        mut compare: impl FnMut(Handle<T>, &T) -> Verdict,
    ) -> Descent<T> {
        self.root(checksum)
            .descend(pool, |handle, node| match checksum.cmp(&node.checksum()) {
                Ordering::Less => Verdict::Before,
                Ordering::Greater => Verdict::After,
                Ordering::Equal => compare(handle, node),
            })
    }

    /// Puts `node` where [`Forest::descend`] for its checksum has ended.
    pub(crate) fn insert(&mut self, pool: &mut impl Values<T>, at: Vacancy<T>, node: Handle<T>) {
        self.root_of(pool, node).insert(pool, at, node);
        self.len += 1;
    }

    /// Whether `node`, which is in some forest, is in this one.
    pub(crate) fn contains(&self, pool: &impl Values<T>, node: Handle<T>) -> bool {
        self.root(pool[node].checksum()).contains(pool, node)
    }

    /// Takes out `node`, which is in one of the trees.
    pub(crate) fn remove(&mut self, pool: &mut impl Values<T>, node: Handle<T>) {
        self.root_of(pool, node).remove(pool, node);
        self.len -= 1;
    }

    /// Puts `new`, which has the same checksum, in the place of `old`.
    pub(crate) fn replace(&mut self, pool: &mut impl Values<T>, old: Handle<T>, new: Handle<T>) {
        self.root_of(pool, old).replace(pool, old, new);
    }

    /// Forgets all nodes at once; their links mean nothing from now on.
    ///
    /// About `expected` nodes are to come. Without memory for as many trees, there are fewer.
    pub(crate) fn forget(&mut self, expected: usize) {
        self.len = 0;
        if !self.suits(expected) {
            if let Ok(roots) = bare(expected) {
                self.roots = roots;
                return;
            }
        }
        self.roots.iter_mut().for_each(|root| *root = Root::new());
    }

    /// Makes the number of trees fit that of nodes, if there is memory for it.
    pub(crate) fn fit(&mut self, pool: &mut impl Values<T>) -> Result {
        if self.suits(self.len) {
            return Ok(());
        }
        let mut nodes = KVVec::with_capacity(self.len, GFP_KERNEL)?;
        for node in self.roots.iter().flat_map(|root| root.nodes(pool)) {
            nodes.push(node, GFP_KERNEL)?;
        }
        self.roots = bare(self.len)?;
        // They come in order, so each is the last of its tree.
        for node in nodes {
            self.root_of(pool, node).append(pool, node);
        }
        Ok(())
    }

    /// Whether the number of trees is right, or nearly so, for that many nodes.
    pub(crate) fn suits(&self, nodes: usize) -> bool {
        let trees = trees_for(nodes);
        (trees..=4 * trees).contains(&self.roots.len())
    }

    fn root(&self, checksum: u32) -> &Root<T> {
        &self.roots[self.shard(checksum)]
    }

    fn root_of(&mut self, pool: &impl Values<T>, node: Handle<T>) -> &mut Root<T> {
        let shard = self.shard(pool[node].checksum());
        &mut self.roots[shard]
    }

    /// The tree for a checksum: its top bits.
    fn shard(&self, checksum: u32) -> usize {
        (u64::from(checksum) * self.roots.len() as u64 >> u32::BITS) as usize
    }

    /// How many nodes there are, if all the trees are sound and in order.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn count_nodes(
        &self,
        pool: &impl Values<T>,
        in_order: impl Fn(&T, &T) -> bool,
    ) -> Option<usize> {
        self.roots
            .iter()
            .map(|root| {
                crate::rbtree::check::count_nodes(root, pool, |a, b| {
                    a.checksum() < b.checksum() || a.checksum() == b.checksum() && in_order(a, b)
                })
            })
            .sum()
    }
}

/// How many trees that many nodes should have.
fn trees_for(nodes: usize) -> usize {
    nodes.next_power_of_two().max(FEWEST)
}

/// Trees for that many nodes, with none yet.
fn bare<T>(nodes: usize) -> Result<KVVec<Root<T>>> {
    Ok(KVVec::from_elem(Root::new(), trees_for(nodes), GFP_KERNEL)?)
}

#[kernel::macros::kunit_tests(ksm_rs_forest)]
mod tests {
    use super::*;
    use crate::{
        fake_page::FakePage,
        pool::Pool,
        random::Random, //
    };
    use core::{
        cell::Cell,
        ops::{
            Index,
            IndexMut, //
        }, //
    };

    /// Nodes that count how often they are looked at.
    struct Watched {
        pool: Pool<FakePage>,
        looks: Cell<usize>,
    }

    impl Index<Handle<FakePage>> for Watched {
        type Output = FakePage;

        fn index(&self, node: Handle<FakePage>) -> &FakePage {
            self.looks.set(self.looks.get() + 1);
            &self.pool[node]
        }
    }

    impl IndexMut<Handle<FakePage>> for Watched {
        fn index_mut(&mut self, node: Handle<FakePage>) -> &mut FakePage {
            &mut self.pool[node]
        }
    }

    struct Fixture {
        pool: Pool<FakePage>,
        forest: Forest<FakePage>,
        random: Random,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            Ok(Self {
                pool: Pool::new(),
                forest: Forest::new()?,
                random: Random::new(11),
            })
        }

        /// Plants nodes of which few have the same checksum.
        fn plant(&mut self, count: usize) -> Result<KVec<Handle<FakePage>>> {
            let mut nodes = KVec::with_capacity(count, GFP_KERNEL)?;
            for _ in 0..count {
                let page = FakePage::new(self.random.below(1 << 32) as u32, 0);
                let checksum = page.checksum();
                let node = self.pool.insert(page, GFP_KERNEL)?;
                let end = self
                    .forest
                    .descend(&self.pool, checksum, |_, _| Verdict::After);
                if let Descent::Vacant(at) = end {
                    self.forest.insert(&mut self.pool, at, node);
                }
                nodes.push(node, GFP_KERNEL)?;
            }
            Ok(nodes)
        }

        fn count(&self) -> Option<usize> {
            self.forest.count_nodes(&self.pool, |_, _| true)
        }
    }

    #[test]
    fn trees_follow_the_number_of_nodes() -> Result {
        let mut fixture = Fixture::new()?;
        let nodes = fixture.plant(3000)?;
        assert_eq!(fixture.forest.roots.len(), FEWEST);
        fixture.forest.fit(&mut fixture.pool)?;
        assert_eq!(fixture.forest.roots.len(), 4096);
        assert_eq!(fixture.count(), Some(3000));
        for node in &nodes[5..] {
            assert!(fixture.forest.contains(&fixture.pool, *node));
            fixture.forest.remove(&mut fixture.pool, *node);
        }
        assert_eq!(fixture.count(), Some(5));
        fixture.forest.fit(&mut fixture.pool)?;
        assert_eq!(fixture.forest.roots.len(), FEWEST);
        assert_eq!(fixture.count(), Some(5));
        Ok(())
    }

    #[test]
    fn a_search_meets_few_nodes_of_a_forest_that_has_only_grown() -> Result {
        let Fixture {
            pool,
            forest,
            mut random,
        } = {
            let mut fixture = Fixture::new()?;
            fixture.plant(1 << 16)?;
            fixture
        };
        let nodes = Watched {
            pool,
            looks: Cell::new(0),
        };
        const SEARCHES: usize = 1000;
        for _ in 0..SEARCHES {
            let checksum = random.below(1 << 32) as u32;
            forest.descend(&nodes, checksum, |_, _| Verdict::Match);
        }
        assert!(nodes.looks.get() < 2 * SEARCHES);
        Ok(())
    }

    #[test]
    fn what_is_forgotten_is_gone() -> Result {
        let mut fixture = Fixture::new()?;
        for (expected, trees) in [(0, 256), (2000, 2048), (900, 2048), (500, 2048), (200, 256)] {
            fixture.plant(100)?;
            fixture.forest.forget(expected);
            assert_eq!(fixture.count(), Some(0));
            assert_eq!(fixture.forest.roots.len(), trees);
        }
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut fixture = Fixture::new()?;
        let mut members = KVec::<Handle<FakePage>>::new();
        for _ in 0..400 {
            match fixture.random.below(20) {
                0 => {
                    fixture.forest.forget(fixture.random.below(3000));
                    members.clear();
                }
                1..4 => fixture.forest.fit(&mut fixture.pool)?,
                4..12 => {
                    let count = fixture.random.below(200);
                    for node in fixture.plant(count)? {
                        members.push(node, GFP_KERNEL)?;
                    }
                }
                _ => {
                    for _ in 0..fixture.random.below(100).min(members.len()) {
                        let index = fixture.random.below(members.len());
                        let last = members.len() - 1;
                        members.swap(index, last);
                        if let Some(node) = members.pop() {
                            fixture.forest.remove(&mut fixture.pool, node);
                            fixture.pool.remove(node);
                        }
                    }
                }
            }
            assert_eq!(fixture.count(), Some(members.len()));
            assert_eq!(fixture.forest.len, members.len());
            let is_member = |node: &Handle<FakePage>| fixture.forest.contains(&fixture.pool, *node);
            assert!(members.iter().all(is_member));
        }
        Ok(())
    }
}
