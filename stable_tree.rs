// SPDX-License-Identifier: GPL-2.0

//! The stable tree: the KSM pages, by checksum and content.
//!
//! A KSM page cannot change, so the checksum kept with its node is right for as long as the node
//! lives. What may happen to a node is that its page goes away unnoticed: the tree holds no
//! reference. A search that meets such a stale node says so, and its caller removes the node and
//! searches again.
//!
//! When a KSM page has as many mappings as `max_page_sharing` allows, a further page of the same
//! content gets a node of its own. Nodes of one content form a chain of siblings; the first of
//! them, the newest, stands in the tree for all.

#![deny(unsafe_code)]

use crate::{
    forest::{
        Forest,
        Keyed, //
    },
    rbtree::{
        Descent,
        Values,
        Verdict, //
    }, //
    table::Handle,
};
use kernel::prelude::*;

/// A node's neighbours in the chain of nodes of the same content.
pub(crate) struct Siblings<T> {
    pub(crate) prev: Option<Handle<T>>,
    pub(crate) next: Option<Handle<T>>,
}

// Derived implementations would ask the same of `T`.
impl<T> Clone for Siblings<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Siblings<T> {}

impl<T> Default for Siblings<T> {
    fn default() -> Self {
        Self {
            prev: None,
            next: None,
        }
    }
}

/// What a value must offer to stand in the stable tree.
pub(crate) trait StableEntry: Keyed {
    /// The neighbours last set.
    fn siblings(&self) -> Siblings<Self>;
    /// Keeps `siblings`.
    fn set_siblings(&mut self, siblings: Siblings<Self>);
    /// When the chain that begins here was last searched for stale nodes, in milliseconds of a clock
    /// that goes round; zero if it was not.
    fn pruned(&self) -> u32;
    /// Notes that; for the first of a chain only.
    fn set_pruned(&mut self, now: u32);
}

/// How a search for a page's content ended.
pub(crate) enum Lookup<T> {
    /// The first node of that content.
    Match(Handle<T>),
    /// There is none.
    Missing,
    /// Not at all: this node's page is gone.
    Stale(Handle<T>),
}

/// See the [module's description](self).
pub(crate) struct StableTree<T> {
    forest: Forest<T>,
    /// Contents that have several nodes.
    chains: usize,
    /// Nodes of such contents.
    dups: usize,
}

impl<T: StableEntry> StableTree<T> {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            forest: Forest::new()?,
            chains: 0,
            dups: 0,
        })
    }

    /// Searches for a content.
    ///
    /// `compare` says where it stands, seen from that of a node with the same checksum.
    pub(crate) fn find(
        &self,
        pool: &impl Values<T>,
        checksum: u32,
        compare: impl FnMut(Handle<T>, &T) -> Verdict,
    ) -> Lookup<T> {
        match self.forest.descend(pool, checksum, compare) {
            Descent::Found(node) => Lookup::Match(node),
            Descent::Stopped(node) => Lookup::Stale(node),
            Descent::Vacant(_) => Lookup::Missing,
        }
    }

    /// Whether there is a node with this checksum.
    #[inline]
    pub(crate) fn has(&self, pool: &impl Values<T>, checksum: u32) -> bool {
        let descent = self.forest.descend(pool, checksum, |_, _| Verdict::Match);
        matches!(descent, Descent::Found(_))
    }

    /// Forgets all nodes at once, of which none may have siblings when it is inserted again.
    pub(crate) fn forget(&mut self) {
        self.forest.forget();
        (self.chains, self.dups) = (0, 0);
    }

    /// The tree's parts, for who wants to fetch those that a search will begin with.
    #[inline]
    pub(crate) fn forest(&self) -> &Forest<T> {
        &self.forest
    }

    /// How many contents have more than one node, and how many nodes those have.
    pub(crate) fn count_chains(&self) -> (usize, usize) {
        (self.chains, self.dups)
    }

    /// The node behind `node` in its chain.
    pub(crate) fn next_in_chain(pool: &impl Values<T>, node: Handle<T>) -> Option<Handle<T>> {
        pool[node].siblings().next
    }

    /// The first node in the chain that begins with `first` that `suits`.
    pub(crate) fn first_that(
        pool: &impl Values<T>,
        first: Handle<T>,
        suits: impl Fn(&T) -> bool,
    ) -> Option<Handle<T>> {
        core::iter::successors(Some(first), |node| pool[*node].siblings().next)
            .find(|node| suits(&pool[*node]))
    }

    /// Inserts `node`, before its siblings if it has any.
    ///
    /// Returns a stale node that stood in the way, if there was one; then nothing is inserted.
    pub(crate) fn insert(
        &mut self,
        pool: &mut impl Values<T>,
        node: Handle<T>,
        compare: impl FnMut(Handle<T>, &T) -> Verdict,
    ) -> core::result::Result<(), Handle<T>> {
        let checksum = pool[node].checksum();
        match self.forest.descend(pool, checksum, compare) {
            Descent::Vacant(at) => self.forest.insert(pool, at, node),
            Descent::Found(first) => {
                if Self::next_in_chain(pool, first).is_none() {
                    self.chains += 1;
                    self.dups += 1;
                }
                self.dups += 1;
                self.forest.replace(pool, first, node);
                let pruned = pool[first].pruned();
                link(pool, node, first);
                pool[node].set_pruned(pruned);
            }
            Descent::Stopped(stale) => return Err(stale),
        }
        Ok(())
    }

    /// Takes out `node`, which is in the tree or in a chain.
    pub(crate) fn remove(&mut self, pool: &mut impl Values<T>, node: Handle<T>) {
        let Siblings { prev, next } = pool[node].siblings();
        pool[node].set_siblings(Siblings::default());
        self.count_removal(pool, prev, next);
        if let Some(next) = next {
            edit(pool, next, |siblings| siblings.prev = prev);
        }
        match (prev, next) {
            (Some(prev), _) => edit(pool, prev, |siblings| siblings.next = next),
            (None, Some(next)) => self.forest.replace(pool, node, next),
            (None, None) => self.forest.remove(pool, node),
        }
    }

    /// Counts a node less between these two neighbours, one of which may be left alone by it.
    fn count_removal(
        &mut self,
        pool: &impl Values<T>,
        prev: Option<Handle<T>>,
        next: Option<Handle<T>>,
    ) {
        let left_alone = match (prev, next) {
            (None, None) => return,
            (Some(prev), None) => pool[prev].siblings().prev.is_none(),
            (None, Some(next)) => pool[next].siblings().next.is_none(),
            (Some(_), Some(_)) => false,
        };
        self.dups -= 1;
        if left_alone {
            self.chains -= 1;
            self.dups -= 1;
        }
    }
}

fn edit<T: StableEntry>(
    pool: &mut impl Values<T>,
    node: Handle<T>,
    change: impl FnOnce(&mut Siblings<T>),
) {
    let mut siblings = pool[node].siblings();
    change(&mut siblings);
    pool[node].set_siblings(siblings);
}

fn link<T: StableEntry>(pool: &mut impl Values<T>, prev: Handle<T>, next: Handle<T>) {
    edit(pool, prev, |siblings| siblings.next = Some(next));
    edit(pool, next, |siblings| siblings.prev = Some(prev));
}

#[kernel::macros::kunit_tests(ksm_rs_stable_tree)]
mod tests {
    use super::*;
    use crate::{
        fake_page::{
            FakeHandle,
            FakePage, //
        },
        pool::Pool,
        random::Random, //
    };

    struct Fixture {
        pool: Pool<FakePage>,
        tree: StableTree<FakePage>,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            Ok(Self {
                pool: Pool::new(),
                tree: StableTree::new()?,
            })
        }

        fn add(&mut self, checksum: u32, content: usize) -> Result<FakeHandle> {
            let page = FakePage::new(checksum, content);
            let node = self.pool.insert(page, GFP_KERNEL)?;
            self.tree
                .insert(&mut self.pool, node, |_, other| other.verdict(content))
                .map_err(|_| EBUSY)?;
            Ok(node)
        }

        fn find(&self, checksum: u32, content: usize) -> Lookup<FakePage> {
            self.tree
                .find(&self.pool, checksum, |_, node| node.verdict(content))
        }

        fn remove(&mut self, node: FakeHandle) {
            self.tree.remove(&mut self.pool, node);
            self.pool.remove(node);
        }

        fn chain_length(&self, first: FakeHandle) -> usize {
            core::iter::successors(Some(first), |n| self.pool[*n].siblings().next).count()
        }

        fn count(&self) -> Option<usize> {
            self.tree
                .forest
                .count_nodes(&self.pool, |a, b| a.content < b.content)
        }
    }

    fn scattered(n: usize) -> u32 {
        (n as u32).wrapping_mul(0x0123_4567)
    }

    #[test]
    fn finds_what_is_there() -> Result {
        let mut fixture = Fixture::new()?;
        for n in 0..200 {
            fixture.add(scattered(n), n)?;
            fixture.add(77, 1000 + n)?;
        }
        assert_eq!(fixture.count(), Some(400));
        for n in 0..200 {
            let found = fixture.find(scattered(n), n);
            assert!(matches!(found, Lookup::Match(node) if fixture.pool[node].content == n));
            let found = fixture.find(77, 1000 + n);
            assert!(matches!(found, Lookup::Match(node) if fixture.pool[node].content == 1000 + n));
            assert!(matches!(fixture.find(78, 1000 + n), Lookup::Missing));
        }
        Ok(())
    }

    #[test]
    fn a_stale_node_is_named_and_can_be_removed() -> Result {
        let mut fixture = Fixture::new()?;
        let gone = fixture.add(5, 5)?;
        let other = fixture.add(5, 6)?;
        fixture.pool[gone].gone = true;
        assert!(matches!(fixture.find(5, 4), Lookup::Stale(node) if node == gone));
        fixture.remove(gone);
        assert!(matches!(fixture.find(5, 4), Lookup::Missing));
        assert!(matches!(fixture.find(5, 6), Lookup::Match(node) if node == other));
        Ok(())
    }

    #[test]
    fn duplicates_form_a_chain() -> Result {
        let mut fixture = Fixture::new()?;
        let old = fixture.add(5, 5)?;
        let middle = fixture.add(5, 5)?;
        let new = fixture.add(5, 5)?;
        assert!(matches!(fixture.find(5, 5), Lookup::Match(node) if node == new));
        assert_eq!(fixture.tree.count_chains(), (1, 3));
        fixture.pool[new].full = true;
        let free = StableTree::first_that(&fixture.pool, new, |page| !page.full);
        assert_eq!(free, Some(middle));
        // First out of the tree, then the one in the middle, then the last.
        fixture.remove(new);
        assert!(matches!(fixture.find(5, 5), Lookup::Match(node) if node == middle));
        assert_eq!(fixture.chain_length(middle), 2);
        assert_eq!(fixture.tree.count_chains(), (1, 2));
        fixture.remove(middle);
        assert_eq!(fixture.tree.count_chains(), (0, 0));
        assert!(matches!(fixture.find(5, 5), Lookup::Match(node) if node == old));
        fixture.remove(old);
        assert!(matches!(fixture.find(5, 5), Lookup::Missing));
        assert_eq!(fixture.count(), Some(0));
        Ok(())
    }

    /// How many nodes are looked at when so many equal pages come one by one, of which two share a
    /// node.
    fn visits_for(pages: usize) -> Result<usize> {
        let mut fixture = Fixture::new()?;
        let visits = core::cell::Cell::new(0);
        for _ in 0..pages {
            let Lookup::Match(first) = fixture.find(5, 5) else {
                fixture.add(5, 5)?;
                continue;
            };
            let with_room = StableTree::first_that(&fixture.pool, first, |page| {
                visits.set(visits.get() + 1);
                !page.full
            });
            match with_room {
                Some(node) => fixture.pool[node].full = true,
                None => drop(fixture.add(5, 5)?),
            }
        }
        Ok(visits.get())
    }

    #[test]
    fn each_of_many_equal_pages_costs_the_same() -> Result {
        let (few, four_times) = (visits_for(500)?, visits_for(2000)?);
        assert!(four_times <= 5 * few);
        Ok(())
    }

    #[test]
    fn a_new_first_knows_when_its_chain_was_pruned() -> Result {
        let mut fixture = Fixture::new()?;
        let old = fixture.add(5, 5)?;
        fixture.pool[old].set_pruned(77);
        let new = fixture.add(5, 5)?;
        assert_eq!(fixture.pool[new].pruned(), 77);
        Ok(())
    }

    #[test]
    fn chains_lose_nodes_in_any_order() -> Result {
        let mut random = Random::new(4);
        let mut fixture = Fixture::new()?;
        let mut nodes = KVec::new();
        for n in 0..240 {
            nodes.push(fixture.add(n % 3, (n % 24) as usize)?, GFP_KERNEL)?;
        }
        assert_eq!(fixture.count(), Some(24));
        while !nodes.is_empty() {
            let (index, last) = (random.below(nodes.len()), nodes.len() - 1);
            nodes.swap(index, last);
            if let Some(node) = nodes.pop() {
                fixture.remove(node);
            }
            let mut copies = [0; 24];
            for node in &nodes {
                copies[fixture.pool[*node].content] += 1;
            }
            let distinct = copies.iter().filter(|count| **count > 0);
            assert_eq!(fixture.count(), Some(distinct.count()));
            let chains = copies.iter().filter(|count| **count > 1);
            let expected = chains.fold((0, 0), |(n, dups), count| (n + 1, dups + count));
            assert_eq!(fixture.tree.count_chains(), expected);
        }
        Ok(())
    }

    const CONTENTS: usize = 12;

    /// How many nodes of each content there are.
    fn census(pool: &Pool<FakePage>, nodes: &[FakeHandle]) -> [usize; CONTENTS] {
        let mut copies = [0; CONTENTS];
        for node in nodes {
            copies[pool[*node].content] += 1;
        }
        copies
    }

    fn ensure_agreement(fixture: &Fixture, nodes: &[FakeHandle]) {
        let copies = census(&fixture.pool, nodes);
        let distinct = copies.iter().filter(|count| **count > 0);
        assert_eq!(fixture.count(), Some(distinct.count()));
        let chains = copies.iter().filter(|count| **count > 1);
        let expected = chains.fold((0, 0), |(n, dups), count| (n + 1, dups + count));
        assert_eq!(fixture.tree.count_chains(), expected);
        for (content, count) in copies.into_iter().enumerate() {
            match fixture.find((content % 5) as u32, content) {
                Lookup::Match(first) => assert_eq!(fixture.chain_length(first), count),
                Lookup::Missing => assert_eq!(count, 0),
                // Its content cannot be told from those that share its checksum.
                Lookup::Stale(node) => assert!(fixture.pool[node].gone),
            }
        }
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut random = Random::new(24);
        let mut fixture = Fixture::new()?;
        let mut nodes = KVec::<FakeHandle>::new();
        for _ in 0..4000 {
            let content = random.below(CONTENTS);
            match random.below(10) {
                0..5 if nodes.len() < 60 => match fixture.add((content % 5) as u32, content) {
                    Ok(node) => nodes.push(node, GFP_KERNEL)?,
                    // One that is gone stands in the way.
                    Err(_) => assert!(nodes.iter().any(|node| fixture.pool[*node].gone)),
                },
                5 if !nodes.is_empty() => {
                    let node = nodes[random.below(nodes.len())];
                    fixture.pool[node].gone = true;
                }
                _ if !nodes.is_empty() => {
                    let (index, last) = (random.below(nodes.len()), nodes.len() - 1);
                    nodes.swap(index, last);
                    if let Some(node) = nodes.pop() {
                        fixture.remove(node);
                    }
                }
                _ => {}
            }
            ensure_agreement(&fixture, &nodes);
        }
        Ok(())
    }
}
