// SPDX-License-Identifier: GPL-2.0

//! The unstable tree: pages that have not changed for a full scan, by checksum and content.
//!
//! Its pages are not write-protected, so their contents may differ from the checksums that they
//! stand under. That costs a missed merge, never the order of the tree: nodes are compared by the
//! checksum that they were inserted with, and contents only where two checksums are equal. So a node
//! can stay from one full scan to the next. All of them can be forgotten at once, without taking the
//! tree down node by node.

#![deny(unsafe_code)]

use crate::containers::{
    handle::Handle,
    rbtree::{
        Descent,
        Values,
        Verdict, //
    },
    sharded_tree::{
        Keyed, //
        ShardedTree,
    }, //
};
use kernel::prelude::*;

/// The result of a search in the tree.
pub(crate) enum Outcome<N> {
    /// A node of the same content.
    Match(Handle<N>),
    /// None: the page's own node is now in the tree.
    Inserted,
    /// A node in its way whose page could not be looked at.
    Blocked(Handle<N>),
}

/// See the [module's description](self).
pub(crate) struct UnstableTree<T> {
    trees: ShardedTree<T>,
}

impl<T: Keyed> UnstableTree<T> {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            trees: ShardedTree::new()?,
        })
    }

    /// Searches for a node like `node`, and inserts it where there is none.
    ///
    /// `compare` says where the page of `node` stands, seen from that of a node with the same
    /// checksum.
    pub(crate) fn search_or_insert(
        &mut self,
        pool: &mut impl Values<T>,
        node: Handle<T::Name>,
        compare: impl FnMut(Handle<T::Name>, &T) -> Verdict,
    ) -> Outcome<T::Name> {
        let checksum = pool[node].checksum();
        match self.trees.descend(pool, checksum, compare) {
            Descent::Found(other) => Outcome::Match(other),
            Descent::Stopped(other) => Outcome::Blocked(other),
            Descent::Vacant(at) => {
                self.trees.insert(pool, at, node);
                Outcome::Inserted
            }
        }
    }

    /// Whether `node`, which is in some unstable tree, is in this one.
    pub(crate) fn contains(&self, pool: &impl Values<T>, node: Handle<T::Name>) -> bool {
        self.trees.contains(pool, node)
    }

    /// Takes out `node`, which was inserted after the last [`UnstableTree::forget`].
    pub(crate) fn remove(&mut self, pool: &mut impl Values<T>, node: Handle<T::Name>) {
        self.trees.remove(pool, node);
    }

    /// Forgets every node, and gives the CPU away in between if others want it.
    pub(crate) fn forget(&mut self) {
        self.trees.forget();
    }

    /// The tree's parts, for callers that fetch those that a search will begin with.
    #[inline]
    pub(crate) fn trees(&self) -> &ShardedTree<T> {
        &self.trees
    }
}

#[kernel::macros::kunit_tests(ksm_rs_unstable_tree)]
mod tests {
    use super::*;
    use crate::{
        containers::pool::Pool,
        testing::{
            fake_page::FakePage,
            random::Random, //
        }, //
    };

    struct Fixture {
        pool: Pool<FakePage>,
        tree: UnstableTree<FakePage>,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            Ok(Self {
                pool: Pool::new(),
                tree: UnstableTree::new()?,
            })
        }

        fn offer(&mut self, page: FakePage) -> Result<(Handle<FakePage>, Outcome<FakePage>)> {
            let content = page.content;
            let node = self.pool.insert(page, GFP_KERNEL)?;
            let outcome = self
                .tree
                .search_or_insert(&mut self.pool, node, |_, other| other.verdict(content));
            Ok((node, outcome))
        }

        fn count(&self) -> Option<usize> {
            self.tree
                .trees
                .count_nodes(&self.pool, |a, b| a.content < b.content)
        }
    }

    #[test]
    fn equal_pages_meet() -> Result {
        let mut fixture = Fixture::new()?;
        let (first, outcome) = fixture.offer(FakePage::new(9, 1))?;
        assert!(matches!(outcome, Outcome::Inserted));
        let (_, outcome) = fixture.offer(FakePage::new(9, 1))?;
        assert!(matches!(outcome, Outcome::Match(found) if found == first));
        assert_eq!(fixture.count(), Some(1));
        Ok(())
    }

    #[test]
    fn equal_checksums_alone_are_not_a_match() -> Result {
        let mut fixture = Fixture::new()?;
        for content in 0..300 {
            let (_, outcome) = fixture.offer(FakePage::new(9, content * 7 % 300))?;
            assert!(matches!(outcome, Outcome::Inserted));
        }
        assert_eq!(fixture.count(), Some(300));
        Ok(())
    }

    #[test]
    fn a_changed_page_misses_merges_and_nothing_else() -> Result {
        let mut fixture = Fixture::new()?;
        let mut random = Random::new(3);
        let mut nodes = KVec::new();
        for n in 0..500 {
            let checksum = random.below(1 << 32) as u32;
            let (node, outcome) = fixture.offer(FakePage::new(checksum, n))?;
            if matches!(outcome, Outcome::Inserted) {
                nodes.push(node, GFP_KERNEL)?;
            }
            let changed = nodes[random.below(nodes.len())];
            fixture.pool[changed].content = random.below(500);
        }
        // Every node can still be found and taken out.
        let in_tree =
            |fixture: &Fixture| fixture.tree.trees.count_nodes(&fixture.pool, |_, _| true);
        assert_eq!(in_tree(&fixture), Some(nodes.len()));
        while let Some(node) = nodes.pop() {
            fixture.tree.remove(&mut fixture.pool, node);
            assert_eq!(in_tree(&fixture), Some(nodes.len()));
        }
        Ok(())
    }

    #[test]
    fn a_page_that_is_gone_blocks_the_search() -> Result {
        let mut fixture = Fixture::new()?;
        let (first, _) = fixture.offer(FakePage::new(9, 1))?;
        fixture.pool[first].gone = true;
        let (_, outcome) = fixture.offer(FakePage::new(9, 1))?;
        assert!(matches!(outcome, Outcome::Blocked(found) if found == first));
        Ok(())
    }

    #[test]
    fn a_node_is_in_its_own_tree_only() -> Result {
        let mut fixture = Fixture::new()?;
        let other = UnstableTree::<FakePage>::new()?;
        for content in 0..100 {
            let (node, _) = fixture.offer(FakePage::new(5, content))?;
            assert!(fixture.tree.contains(&fixture.pool, node));
            assert!(!other.contains(&fixture.pool, node));
        }
        Ok(())
    }

    #[test]
    fn forgetting_is_not_remembering() -> Result {
        let mut fixture = Fixture::new()?;
        for content in 0..100 {
            fixture.offer(FakePage::new(
                (content as u32).wrapping_mul(0x0800_0001),
                content,
            ))?;
        }
        assert_eq!(fixture.count(), Some(100));
        fixture.tree.forget();
        assert_eq!(fixture.count(), Some(0));
        let (_, outcome) = fixture.offer(FakePage::new(0, 0))?;
        assert!(matches!(outcome, Outcome::Inserted));
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut random = Random::new(25);
        let mut fixture = Fixture::new()?;
        // All that were offered and not taken out again, with the checksum that they came with.
        let mut waiting = KVec::<(Handle<FakePage>, u32)>::new();
        for _ in 0..4000 {
            match random.below(200) {
                0 => {
                    fixture.tree.forget();
                    waiting.clear();
                }
                1..60 if !waiting.is_empty() => {
                    let (index, last) = (random.below(waiting.len()), waiting.len() - 1);
                    waiting.swap(index, last);
                    if let Some((node, _)) = waiting.pop() {
                        fixture.tree.remove(&mut fixture.pool, node);
                        fixture.pool.remove(node);
                    }
                }
                60..80 if !waiting.is_empty() => {
                    // Its page is written to.
                    let (node, _) = waiting[random.below(waiting.len())];
                    fixture.pool[node].content = random.below(16);
                }
                _ => {
                    let (checksum, content) = (random.below(6) as u32, random.below(16));
                    let (node, outcome) = fixture.offer(FakePage::new(checksum, content))?;
                    match outcome {
                        Outcome::Inserted => waiting.push((node, checksum), GFP_KERNEL)?,
                        Outcome::Match(other) => {
                            assert!(waiting.iter().any(|known| *known == (other, checksum)));
                            assert_eq!(fixture.pool[other].content, content);
                            fixture.pool.remove(node);
                        }
                        Outcome::Blocked(_) => return Err(EBUSY),
                    }
                }
            }
            let count = fixture.tree.trees.count_nodes(&fixture.pool, |_, _| true);
            assert_eq!(count, Some(waiting.len()));
        }
        Ok(())
    }
}
