// SPDX-License-Identifier: GPL-2.0

//! The stable tree: the KSM pages, by checksum and content.
//!
//! A KSM page cannot change, so the checksum kept with its node is right for as long as the node
//! lives. The page of a node may go away unnoticed: the tree holds no
//! reference. A search that meets such a stale node says so, and its caller removes the node and
//! searches again.
//!
//! When a KSM page has as many mappings as `max_page_sharing` allows, a further page of the same
//! content gets a node of its own. Nodes of one content form a chain; the first of them stands in the
//! tree for all.
//!
//! A chain is a ring, so that each change of it costs the same however long it is. Its first node is
//! marked, and the one before that is the last.
//!
//! # Invariants
//!
//! In a chain no node without room for another mapping stands before one with room: a search looks at
//! the first node only. A node has siblings if its chain has more than one node; the first of a chain
//! is in the tree, and no other. The KUnit suite checks them after each change.

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

/// A node's place in the chain of nodes of the same content; the default is that of a node that is
/// alone.
pub(crate) struct Siblings<N> {
    /// The neighbours in the ring, unless the node is alone.
    pub(crate) around: Option<Around<N>>,
    /// Whether the ring begins with the node.
    pub(crate) is_first: bool,
}

/// The neighbours of a node in a ring of at least two nodes.
pub(crate) struct Around<N> {
    pub(crate) prev: Handle<N>,
    pub(crate) next: Handle<N>,
}

// Derived implementations would ask the same of `N`.
impl<N> Clone for Siblings<N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Siblings<N> {}

impl<N> Default for Siblings<N> {
    fn default() -> Self {
        Self {
            around: None,
            is_first: false,
        }
    }
}

impl<N> Clone for Around<N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Around<N> {}

/// A value that can stand in the stable tree.
pub(crate) trait StableEntry: Keyed {
    /// The value that was last set.
    fn siblings(&self) -> Siblings<Self::Name>;
    /// Keeps `siblings`.
    fn set_siblings(&mut self, siblings: Siblings<Self::Name>);
    /// Whether one more mapping may join.
    ///
    /// If that changes while the node is in the tree, [`StableTree::reorder`] must be called before
    /// anything else of the tree.
    fn has_room(&self) -> bool;
}

/// Work that [`StableTree::reorder`] leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reordered {
    /// Nothing: the chain is in order.
    Done,
    /// The node must be removed and inserted again: its place is at an end of the chain, which only a
    /// search can find.
    NotYet,
}

/// How a search for a page's content ended.
pub(crate) enum Lookup<N> {
    /// The first node of that content.
    Match(Handle<N>),
    /// There is none.
    Missing,
    /// Not at all: this node's page is gone.
    Stale(Handle<N>),
}

/// See the [module's description](self).
pub(crate) struct StableTree<T> {
    trees: ShardedTree<T>,
    /// Contents that have several nodes.
    chains: usize,
    /// Nodes of such contents.
    dups: usize,
}

impl<T: StableEntry> StableTree<T> {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            trees: ShardedTree::new()?,
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
        compare: impl FnMut(Handle<T::Name>, &T) -> Verdict,
    ) -> Lookup<T::Name> {
        match self.trees.descend(pool, checksum, compare) {
            Descent::Found(node) => Lookup::Match(node),
            Descent::Stopped(node) => Lookup::Stale(node),
            Descent::Vacant(_) => Lookup::Missing,
        }
    }

    /// Whether there is a node with this checksum.
    #[inline]
    pub(crate) fn has(&self, pool: &impl Values<T>, checksum: u32) -> bool {
        let descent = self.trees.descend(pool, checksum, |_, _| Verdict::Match);
        matches!(descent, Descent::Found(_))
    }

    /// Forgets all nodes at once, of which none may have siblings when it is inserted again.
    pub(crate) fn forget(&mut self) {
        self.trees.forget();
        (self.chains, self.dups) = (0, 0);
    }

    /// The tree's parts, for callers that fetch those that a search will begin with.
    #[inline]
    pub(crate) fn trees(&self) -> &ShardedTree<T> {
        &self.trees
    }

    /// How many contents have more than one node, and how many nodes those have.
    pub(crate) fn count_chains(&self) -> (usize, usize) {
        (self.chains, self.dups)
    }

    /// Whether `node` has siblings.
    pub(crate) fn is_in_chain(pool: &impl Values<T>, node: Handle<T::Name>) -> bool {
        pool[node].siblings().around.is_some()
    }

    /// Inserts `node`; before its siblings if it has any and has room itself, behind them if not.
    ///
    /// Returns a stale node that stood in the way, if there was one; then nothing is inserted.
    pub(crate) fn insert(
        &mut self,
        pool: &mut impl Values<T>,
        node: Handle<T::Name>,
        compare: impl FnMut(Handle<T::Name>, &T) -> Verdict,
    ) -> core::result::Result<(), Handle<T::Name>> {
        let checksum = pool[node].checksum();
        match self.trees.descend(pool, checksum, compare) {
            Descent::Vacant(at) => self.trees.insert(pool, at, node),
            Descent::Found(first) => {
                if !Self::is_in_chain(pool, first) {
                    self.chains += 1;
                    self.dups += 1;
                }
                self.dups += 1;
                link_before(pool, first, node);
                if pool[node].has_room() {
                    self.pass_lead(pool, first, node);
                }
            }
            Descent::Stopped(stale) => return Err(stale),
        }
        Ok(())
    }

    /// Takes out `node`, which is in the tree or in a chain.
    pub(crate) fn remove(&mut self, pool: &mut impl Values<T>, node: Handle<T::Name>) {
        let Siblings { around, is_first } = pool[node].siblings();
        let Some(Around { prev, next }) = around else {
            self.trees.remove(pool, node);
            return;
        };
        if is_first {
            self.pass_lead(pool, node, next);
        }
        self.dups -= 1;
        pool[node].set_siblings(Siblings::default());
        if prev == next {
            self.chains -= 1;
            self.dups -= 1;
            pool[next].set_siblings(Siblings::default());
        } else {
            link(pool, prev, next);
        }
    }

    /// Restores the order of the chain of `node`, after it got room for another mapping or lost it.
    ///
    /// From within a chain neither end can be reached but through all that is between; then the
    /// caller has to have `node` inserted anew.
    #[must_use]
    pub(crate) fn reorder(
        &mut self,
        pool: &mut impl Values<T>,
        node: Handle<T::Name>,
    ) -> Reordered {
        let Siblings { around, is_first } = pool[node].siblings();
        let Some(Around { prev, next }) = around else {
            return Reordered::Done;
        };
        let is_last = pool[next].siblings().is_first;
        let in_order = match pool[node].has_room() {
            true => is_first || pool[prev].has_room(),
            false => is_last || !pool[next].has_room(),
        };
        if in_order {
            return Reordered::Done;
        }
        if !is_first {
            return Reordered::NotYet;
        }
        // The ring stays as it is: what was the first is the last then.
        self.pass_lead(pool, node, next);
        Reordered::Done
    }

    /// Lets `new` stand in the tree in place of `old`, the first node of its chain.
    fn pass_lead(&mut self, pool: &mut impl Values<T>, old: Handle<T::Name>, new: Handle<T::Name>) {
        self.trees.replace(pool, old, new);
        edit(pool, old, |siblings| siblings.is_first = false);
        edit(pool, new, |siblings| siblings.is_first = true);
    }
}

fn edit<T: StableEntry>(
    pool: &mut impl Values<T>,
    node: Handle<T::Name>,
    change: impl FnOnce(&mut Siblings<T::Name>),
) {
    let mut siblings = pool[node].siblings();
    change(&mut siblings);
    pool[node].set_siblings(siblings);
}

/// Makes two nodes of a ring neighbours.
fn link<T: StableEntry>(pool: &mut impl Values<T>, prev: Handle<T::Name>, next: Handle<T::Name>) {
    edit(pool, prev, |siblings| {
        let around = siblings.around.map_or(next, |around| around.prev);
        siblings.around = Some(Around { prev: around, next });
    });
    edit(pool, next, |siblings| {
        let around = siblings.around.map_or(prev, |around| around.next);
        siblings.around = Some(Around { prev, next: around });
    });
}

/// Links `node`, which is alone, between `first` and the last of its chain.
fn link_before<T: StableEntry>(
    pool: &mut impl Values<T>,
    first: Handle<T::Name>,
    node: Handle<T::Name>,
) {
    match pool[first].siblings().around {
        Some(Around { prev: last, .. }) => {
            link(pool, last, node);
            link(pool, node, first);
        }
        None => {
            edit(pool, first, |siblings| siblings.is_first = true);
            link(pool, first, node);
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_stable_tree)]
mod tests {
    use super::*;
    use crate::{
        containers::pool::Pool,
        testing::{
            fake_page::{
                FakeHandle,
                FakePage, //
            },
            random::Random, //
        }, //
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

        /// The nodes of the chain that begins with `first`, in their order, if it is sound.
        fn members(&self, first: FakeHandle) -> Result<KVec<FakeHandle>> {
            let (mut chain, mut node) = (KVec::new(), first);
            loop {
                chain.push(node, GFP_KERNEL)?;
                let Siblings { around, is_first } = self.pool[node].siblings();
                let Some(Around { next, .. }) = around else {
                    assert!(node == first && !is_first);
                    return Ok(chain);
                };
                assert_eq!(is_first, node == first);
                let behind = self.pool[next].siblings().around;
                assert!(behind.is_some_and(|around| around.prev == node));
                if next == first {
                    return Ok(chain);
                }
                node = next;
            }
        }

        /// Whether in the chain that begins with `first` all nodes with room stand before all others.
        fn is_in_order(&self, first: FakeHandle) -> Result<bool> {
            let chain = self.members(first)?;
            Ok(chain.is_sorted_by_key(|node| self.pool[*node].full))
        }

        /// Lets `node` be full, or have room again, as the scanner does: a node that is gone is taken
        /// out if it would have to move.
        fn set_full(&mut self, node: FakeHandle, full: bool) {
            self.pool[node].full = full;
            if self.tree.reorder(&mut self.pool, node) == Reordered::Done {
                return;
            }
            match self.pool[node].gone {
                true => self.remove(node),
                false => {
                    self.tree.remove(&mut self.pool, node);
                    self.insert(node);
                }
            }
        }

        /// Inserts `node`, which is in no tree; takes out those that stand in its way.
        fn insert(&mut self, node: FakeHandle) {
            let content = self.pool[node].content;
            let verdict = |_, other: &FakePage| other.verdict(content);
            while let Err(stale) = self.tree.insert(&mut self.pool, node, verdict) {
                self.remove(stale);
            }
        }

        fn count(&self) -> Option<usize> {
            self.tree
                .trees
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
        assert_eq!(fixture.members(new)?.as_slice(), [new, middle, old]);
        // First out of the tree, then the one in the middle, then the last.
        fixture.remove(new);
        assert!(matches!(fixture.find(5, 5), Lookup::Match(node) if node == middle));
        assert_eq!(fixture.members(middle)?.as_slice(), [middle, old]);
        assert_eq!(fixture.tree.count_chains(), (1, 2));
        fixture.remove(middle);
        assert_eq!(fixture.tree.count_chains(), (0, 0));
        assert!(matches!(fixture.find(5, 5), Lookup::Match(node) if node == old));
        fixture.remove(old);
        assert!(matches!(fixture.find(5, 5), Lookup::Missing));
        assert_eq!(fixture.count(), Some(0));
        Ok(())
    }

    #[test]
    fn full_nodes_stand_behind_those_with_room() -> Result {
        let mut fixture = Fixture::new()?;
        let old = fixture.add(5, 5)?;
        let middle = fixture.add(5, 5)?;
        let new = fixture.add(5, 5)?;
        // The first fills up, and is the last.
        fixture.set_full(new, true);
        assert_eq!(fixture.members(middle)?.as_slice(), [middle, old, new]);
        // One that does not stand at the boundary, as a fork can bring about.
        fixture.set_full(middle, true);
        fixture.set_full(old, true);
        assert!(fixture.is_in_order(old)?);
        fixture.set_full(new, false);
        assert!(matches!(fixture.find(5, 5), Lookup::Match(node) if node == new));
        assert!(fixture.is_in_order(new)?);
        // A full one that comes last in time stands behind.
        let mut page = FakePage::new(5, 5);
        page.full = true;
        let late = fixture.pool.insert(page, GFP_KERNEL)?;
        fixture.insert(late);
        assert!(fixture.is_in_order(new)? && fixture.members(new)?.len() == 4);
        Ok(())
    }

    /// How many nodes are looked at when so many equal pages come one by one, of which two share a
    /// node, and when each node loses a page and gets another one.
    fn visits_for(pages: usize) -> Result<usize> {
        let mut fixture = Fixture::new()?;
        let visits = core::cell::Cell::new(0);
        let mut nodes = KVec::new();
        for _ in 0..pages {
            let first = fixture.tree.find(&fixture.pool, 5, |_, _| {
                visits.set(visits.get() + 1);
                Verdict::Match
            });
            match first {
                Lookup::Match(first) if !fixture.pool[first].full => fixture.set_full(first, true),
                _ => nodes.push(fixture.add(5, 5)?, GFP_KERNEL)?,
            }
        }
        assert_eq!(nodes.len(), pages / 2);
        for node in nodes {
            fixture.set_full(node, false);
            assert!(matches!(fixture.find(5, 5), Lookup::Match(first) if first == node));
            fixture.set_full(node, true);
            visits.set(visits.get() + 2);
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

    /// How many nodes of each content there are, and how many of those have room.
    fn census(pool: &Pool<FakePage>, nodes: &[FakeHandle]) -> [(usize, usize); CONTENTS] {
        let mut copies = [(0, 0); CONTENTS];
        for node in nodes {
            let (all, with_room) = &mut copies[pool[*node].content];
            *all += 1;
            *with_room += usize::from(!pool[*node].full);
        }
        copies
    }

    fn ensure_agreement(fixture: &Fixture, nodes: &[FakeHandle]) -> Result {
        let copies = census(&fixture.pool, nodes);
        let distinct = copies.iter().filter(|(all, _)| *all > 0);
        assert_eq!(fixture.count(), Some(distinct.count()));
        let chains = copies.iter().filter(|(all, _)| *all > 1);
        let expected = chains.fold((0, 0), |(n, dups), (all, _)| (n + 1, dups + all));
        assert_eq!(fixture.tree.count_chains(), expected);
        for (content, (all, with_room)) in copies.into_iter().enumerate() {
            match fixture.find((content % 5) as u32, content) {
                Lookup::Match(first) => {
                    assert_eq!(fixture.members(first)?.len(), all);
                    assert!(fixture.is_in_order(first)?);
                    assert_eq!(fixture.pool[first].has_room(), with_room > 0);
                }
                Lookup::Missing => assert_eq!(all, 0),
                // Its content cannot be told from those that share its checksum.
                Lookup::Stale(node) => assert!(fixture.pool[node].gone),
            }
        }
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut random = Random::new(24);
        let mut fixture = Fixture::new()?;
        let mut nodes = KVec::<FakeHandle>::new();
        for _ in 0..8000 {
            let content = random.below(CONTENTS);
            match random.below(20) {
                0..6 if nodes.len() < 60 => match fixture.add((content % 5) as u32, content) {
                    Ok(node) => nodes.push(node, GFP_KERNEL)?,
                    // One that is gone stands in the way.
                    Err(_) => assert!(nodes.iter().any(|node| fixture.pool[*node].gone)),
                },
                6 if !nodes.is_empty() => {
                    let node = nodes[random.below(nodes.len())];
                    fixture.pool[node].gone = true;
                }
                7..14 if !nodes.is_empty() => {
                    let node = nodes[random.below(nodes.len())];
                    let full = !fixture.pool[node].full;
                    fixture.set_full(node, full);
                }
                14..20 if !nodes.is_empty() => fixture.remove(nodes[random.below(nodes.len())]),
                _ => {}
            }
            // Some have been taken out because they were in the way.
            nodes.retain(|node| fixture.pool.contains(*node));
            ensure_agreement(&fixture, &nodes)?;
        }
        Ok(())
    }
}
