// SPDX-License-Identifier: GPL-2.0

//! Many small red-black trees that are searched as one.
//!
//! The low bits of a checksum select the tree. There are at least as many trees as nodes, so a search
//! visits one or two nodes, each of which is a cache miss; in a single tree it would visit dozens.
//!
//! # Growth
//!
//! The sharded tree uses linear hashing: insertions and removals change the number of trees a few at a
//! time. With n trees, 2^k <= n < 2^(k+1), a checksum selects its tree by its lowest k+1 bits, or by
//! its lowest k bits if there is no tree of the former number yet. To grow, the sharded tree splits tree
//! n - 2^k: nodes whose bit k is set move to the new tree n. To shrink, it joins the two trees again.
//!
//! Within a tree, the lowest bit in which two checksums differ orders their nodes. So the nodes that
//! a split moves are all on one side of a border, and a red-black tree can be cut there without
//! visiting each node: even a tree with a million nodes of one checksum is split in microseconds. No
//! operation visits all nodes or all trees, except [`ShardedTree::forget`], which visits the trees.
//!
//! Growth allocates a page for every 1,024 trees. Without memory for it the sharded tree stays as it is:
//! trees get deeper, insertions still succeed, and later ones retry.

#![deny(unsafe_code)]

use crate::{
    containers::{
        handle::Handle,
        paged::{
            in_page,
            Paged, //
        },
        rbtree::{
            Descent,
            Root,
            TreeNode,
            Vacancy,
            Values,
            Verdict, //
        }, //
    },
    kernel_api::{
        gfp,
        prefetch::prefetch, //
    }, //
};
use core::{
    cmp::Ordering,
    mem::take, //
};
use kernel::{
    alloc::AllocError,
    prelude::*, //
};

/// A tree's root takes four bytes for nodes of any type.
const ROOTS_IN_PAGE: usize = in_page::<Root<()>>();

/// The minimum number of trees: one page of roots.
const FEWEST: usize = ROOTS_IN_PAGE;

/// The maximum number of trees: there are not more nodes than handles.
const MOST: usize = 1 << 31;

/// A sharded tree grows while it has fewer trees than nodes, and shrinks while it has more trees per node
/// than this. The gap between both limits keeps it from growing and shrinking in turns.
const TREES_PER_NODE: usize = 4;

/// The maximum number of trees that one insertion splits, or one removal joins: enough to keep up with
/// any number of removals.
const CHANGES_AT_ONCE: usize = TREES_PER_NODE;

/// Prefetch the top of a tree this many splits before its own.
const SPLITS_AHEAD: usize = 8;

/// A tree node that has the checksum of a page's content.
pub(crate) trait Keyed: TreeNode {
    /// The checksum; may not change while the node is in a tree.
    fn checksum(&self) -> u32;
}

/// The order of two checksums in a tree: the one whose lowest differing bit is 0 comes first.
#[inline]
fn order(a: u32, b: u32) -> Ordering {
    let different = a ^ b;
    if different == 0 {
        return Ordering::Equal;
    }
    match a & different & different.wrapping_neg() {
        0 => Ordering::Less,
        _ => Ordering::Greater,
    }
}

/// See the [module's description](self).
pub(crate) struct ShardedTree<T> {
    roots: Paged<Root<T>, ROOTS_IN_PAGE>,
    /// The bits of a checksum that may select a tree: the number of trees, rounded up to a power of
    /// two, minus 1.
    mask: usize,
    /// Nodes in all the trees.
    len: usize,
}

impl<T: Keyed> ShardedTree<T> {
    pub(crate) fn new() -> Result<Self> {
        let mut roots = Paged::new();
        for _ in 0..FEWEST {
            roots.grow(GFP_KERNEL)?;
        }
        Ok(Self {
            roots,
            mask: FEWEST - 1,
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
        self.prefetch_top_of(pool, self.number(checksum));
    }

    #[inline]
    fn prefetch_top_of(&self, pool: &impl Values<T>, tree: usize) {
        if let Some(top) = self.roots[tree].top() {
            prefetch(&pool[top]);
        }
    }

    /// Asks the CPU to fetch the nodes below the top of a tree; the top should be in a cache.
    fn prefetch_below_top_of(&self, pool: &impl Values<T>, tree: usize) {
        if let Some(top) = self.roots[tree].top() {
            for below in pool[top].links().children() {
                prefetch(&pool[below]);
            }
        }
    }

    /// Searches by checksum, and asks `compare` only where checksums are equal.
    #[inline]
    pub(crate) fn descend(
        &self,
        pool: &impl Values<T>,
        checksum: u32,
        mut compare: impl FnMut(Handle<T::Name>, &T) -> Verdict,
    ) -> Descent<T::Name> {
        self.root(checksum).descend(pool, |handle, node| {
            match order(checksum, node.checksum()) {
                Ordering::Less => Verdict::Before,
                Ordering::Greater => Verdict::After,
                Ordering::Equal => compare(handle, node),
            }
        })
    }

    /// Puts `node` where [`ShardedTree::descend`] for its checksum has ended.
    ///
    /// Then splits a few trees if there are too few, as far as memory for that is available.
    pub(crate) fn insert(
        &mut self,
        pool: &mut impl Values<T>,
        at: Vacancy<T::Name>,
        node: Handle<T::Name>,
    ) {
        self.root_of(pool, node).insert(pool, at, node);
        self.len += 1;
        self.grow(pool);
    }

    /// Whether `node`, which is in some sharded tree, is in this one.
    pub(crate) fn contains(&self, pool: &impl Values<T>, node: Handle<T::Name>) -> bool {
        self.root(pool[node].checksum()).contains(pool, node)
    }

    /// Takes out `node`, which is in one of the trees.
    ///
    /// Then joins a few trees if there are too many.
    pub(crate) fn remove(&mut self, pool: &mut impl Values<T>, node: Handle<T::Name>) {
        debug_assert!(self.contains(pool, node));
        self.root_of(pool, node).remove(pool, node);
        self.len -= 1;
        self.shrink(pool);
    }

    /// Puts `new`, which has the same checksum, in the place of `old`.
    pub(crate) fn replace(
        &mut self,
        pool: &mut impl Values<T>,
        old: Handle<T::Name>,
        new: Handle<T::Name>,
    ) {
        self.root_of(pool, old).replace(pool, old, new);
    }

    /// Forgets all nodes; their links become meaningless. May sleep.
    pub(crate) fn forget(&mut self) {
        self.roots.truncate(FEWEST);
        for tree in 0..FEWEST {
            self.roots[tree] = Root::new();
        }
        self.mask = FEWEST - 1;
        self.len = 0;
    }

    fn grow(&mut self, pool: &mut impl Values<T>) {
        for _ in 0..CHANGES_AT_ONCE {
            let trees = self.roots.len();
            if trees >= self.len || trees == MOST {
                return;
            }
            // Without memory the trees stay deeper until a later insertion succeeds.
            if self.split_next(pool).is_err() {
                return;
            }
        }
    }

    fn shrink(&mut self, pool: &mut impl Values<T>) {
        for _ in 0..CHANGES_AT_ONCE {
            let trees = self.roots.len();
            if trees <= TREES_PER_NODE * self.len || trees == FEWEST {
                return;
            }
            self.join_last(pool);
        }
    }

    /// Splits the next tree in turn by one more bit of its nodes' checksums.
    ///
    /// # Errors
    ///
    /// Fails without memory for the new root; nothing has changed then.
    fn split_next(&mut self, pool: &mut impl Values<T>) -> core::result::Result<(), AllocError> {
        let new = self.roots.len();
        self.roots.grow(gfp::for_growth())?;
        self.note_number();
        let (old, bit) = twin(new);
        let (low, high) = take(&mut self.roots[old]).split(pool, |node| node.checksum() & bit == 0);
        self.roots[old] = low;
        self.roots[new] = high;
        self.prefetch_top_of(pool, twin(new + SPLITS_AHEAD).0);
        self.prefetch_below_top_of(pool, twin(new + SPLITS_AHEAD / 2).0);
        Ok(())
    }

    /// Joins the last tree with the one that it was split from.
    fn join_last(&mut self, pool: &mut impl Values<T>) {
        let Some(high) = self.roots.pop() else {
            return;
        };
        let (old, _) = twin(self.roots.len());
        self.note_number();
        let low = take(&mut self.roots[old]);
        self.roots[old] = Root::join(pool, low, high);
    }

    /// Updates [`ShardedTree::mask`] after the number of trees has changed.
    fn note_number(&mut self) {
        self.mask = self.roots.len().next_power_of_two() - 1;
    }

    #[inline]
    fn root(&self, checksum: u32) -> &Root<T> {
        &self.roots[self.number(checksum)]
    }

    fn root_of(&mut self, pool: &impl Values<T>, node: Handle<T::Name>) -> &mut Root<T> {
        let tree = self.number(pool[node].checksum());
        &mut self.roots[tree]
    }

    /// The number of the tree for a checksum.
    #[inline]
    fn number(&self, checksum: u32) -> usize {
        let number = checksum as usize & self.mask;
        match number < self.roots.len() {
            true => number,
            false => number & self.mask >> 1,
        }
    }

    /// How many nodes there are, if all the trees are sound and in order.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn count_nodes(
        &self,
        pool: &impl Values<T>,
        in_order: impl Fn(&T, &T) -> bool,
    ) -> Option<usize> {
        use crate::containers::rbtree::check::count_nodes;
        let in_order = |a: &T, b: &T| match order(a.checksum(), b.checksum()) {
            Ordering::Less => true,
            Ordering::Equal => in_order(a, b),
            Ordering::Greater => false,
        };
        (0..self.roots.len())
            .map(|tree| {
                let belongs = |a: &T, b: &T| {
                    let numbers = [a, b].map(|node| self.number(node.checksum()));
                    numbers == [tree; 2] && in_order(a, b)
                };
                let top = self.roots[tree].top();
                let is_at_home = |top| self.number(pool[top].checksum()) == tree;
                match top.is_none_or(is_at_home) {
                    true => count_nodes(&self.roots[tree], pool, belongs),
                    false => None,
                }
            })
            .sum()
    }
}

/// The tree that tree number `new` is split from, and the checksum bit that tells their nodes apart.
fn twin(new: usize) -> (usize, u32) {
    let bit = 1 << new.ilog2();
    (new ^ bit, bit as u32)
}

#[kernel::macros::kunit_tests(ksm_rs_sharded_tree)]
mod tests {
    use super::*;
    use crate::{
        containers::pool::Pool,
        testing::{
            fake_page::FakePage,
            random::Random, //
        }, //
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
        sharded: ShardedTree<FakePage>,
        random: Random,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            Ok(Self {
                pool: Pool::new(),
                sharded: ShardedTree::new()?,
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
                    .sharded
                    .descend(&self.pool, checksum, |_, _| Verdict::After);
                if let Descent::Vacant(at) = end {
                    self.sharded.insert(&mut self.pool, at, node);
                }
                nodes.push(node, GFP_KERNEL)?;
            }
            Ok(nodes)
        }

        fn count(&self) -> Option<usize> {
            self.sharded.count_nodes(&self.pool, |_, _| true)
        }
    }

    #[test]
    fn checksums_are_ordered_by_their_lowest_different_bits() {
        let mut sums = [
            0,
            1,
            2,
            3,
            1 << 31,
            1 << 31 | 1,
            u32::MAX,
            0x5555_5555,
            12345,
        ];
        sums.sort_unstable_by(|a, b| order(*a, *b));
        assert!(sums.is_sorted_by_key(|sum| sum.reverse_bits()));
        assert!(sums.iter().all(|sum| order(*sum, *sum) == Ordering::Equal));
    }

    #[test]
    fn trees_follow_the_number_of_nodes() -> Result {
        let mut fixture = Fixture::new()?;
        let mut nodes = KVVec::new();
        for _ in 0..3000 {
            let node = fixture.plant(1)?;
            nodes.push(node[0], GFP_KERNEL)?;
            let trees = nodes.len().max(FEWEST);
            assert_eq!(fixture.sharded.roots.len(), trees);
        }
        assert_eq!(fixture.count(), Some(3000));
        while let Some(node) = nodes.pop() {
            fixture.sharded.remove(&mut fixture.pool, node);
            let trees = (4 * nodes.len()).clamp(FEWEST, 3000);
            assert_eq!(fixture.sharded.roots.len(), trees);
            assert!(nodes.len() % 100 > 0 || fixture.count() == Some(nodes.len()));
        }
        Ok(())
    }

    #[test]
    fn nodes_that_come_and_go_move_no_others() -> Result {
        let mut fixture = Fixture::new()?;
        for count in [FEWEST, 2 * FEWEST] {
            fixture.plant(count)?;
            let trees = fixture.sharded.roots.len();
            for _ in 0..100 {
                for node in fixture.plant(50)? {
                    fixture.sharded.remove(&mut fixture.pool, node);
                }
                assert!(fixture.sharded.roots.len() <= trees + 70);
            }
        }
        Ok(())
    }

    #[test]
    fn a_search_meets_few_nodes_of_a_forest_that_has_only_grown() -> Result {
        let Fixture {
            pool,
            sharded,
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
            sharded.descend(&nodes, checksum, |_, _| Verdict::Match);
        }
        assert!(nodes.looks.get() < 2 * SEARCHES);
        Ok(())
    }

    #[test]
    fn what_is_forgotten_is_gone() -> Result {
        let mut fixture = Fixture::new()?;
        for count in [0, 100, 5000, 100] {
            fixture.plant(count)?;
            fixture.sharded.forget();
            assert_eq!(fixture.count(), Some(0));
            assert_eq!(fixture.sharded.roots.len(), FEWEST);
        }
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut fixture = Fixture::new()?;
        let mut members = KVVec::<Handle<FakePage>>::new();
        for turn in 0..400 {
            // By turns it grows and shrinks, so that trees come and go.
            let growth = if turn / 50 % 2 == 0 { 16 } else { 4 };
            match fixture.random.below(20) {
                0 if turn % 8 == 0 => {
                    fixture.sharded.forget();
                    members.clear();
                }
                chance if chance < growth => {
                    let count = fixture.random.below(300);
                    for node in fixture.plant(count)? {
                        members.push(node, GFP_KERNEL)?;
                    }
                }
                _ => {
                    for _ in 0..fixture.random.below(400).min(members.len()) {
                        let index = fixture.random.below(members.len());
                        let last = members.len() - 1;
                        members.swap(index, last);
                        if let Some(node) = members.pop() {
                            fixture.sharded.remove(&mut fixture.pool, node);
                            fixture.pool.remove(node);
                        }
                    }
                }
            }
            assert_eq!(fixture.count(), Some(members.len()));
            assert_eq!(fixture.sharded.len, members.len());
            let is_member =
                |node: &Handle<FakePage>| fixture.sharded.contains(&fixture.pool, *node);
            assert!(members.iter().all(is_member));
        }
        Ok(())
    }
}
