// SPDX-License-Identifier: GPL-2.0

//! Red-black trees over the values of a [`Table`](crate::containers::handle_table::Table).
//!
//! `lib/rbtree.c` links nodes by pointer: 24 bytes a node, and a tree that cannot be walked in safe
//! code. Here a link is a [`Handle`], a node's three links with its colour take 12 bytes, and an
//! index into the table stands where a pointer would be followed.
//!
//! # Invariants
//!
//! In a tree, seen from each node: no red node has a red child; every way down to a missing child
//! passes the same number of black nodes; a child's parent link names the node. A node is in at
//! most one tree. The KUnit suite checks them after each change.

#![deny(unsafe_code)]

use crate::containers::handle::{
    raw_or_zero,
    Handle,
    Named, //
};
use core::{
    marker::PhantomData,
    ops::IndexMut, //
};

/// Which child of a node is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left = 0,
    Right = 1,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Side::Left => Side::Right,
            Side::Right => Side::Left,
        }
    }
}

/// Where the nodes of trees are: a [`Table`](crate::containers::handle_table::Table) or a [`Pool`](crate::containers::pool::Pool).
pub(crate) trait Values<T: TreeNode>: IndexMut<Handle<T::Name>, Output = T> {}

impl<T: TreeNode, V: IndexMut<Handle<T::Name>, Output = T>> Values<T> for V {}

/// A node's place in its tree; meaningless outside of one.
#[derive(Clone, Copy, Default)]
pub(crate) struct Links {
    /// The parent's handle or zero, times two; the lowest bit is set in a red node.
    parent_and_red: u32,
    child: [u32; 2],
}

impl Links {
    /// The children of the node.
    pub(crate) fn children<N>(self) -> impl Iterator<Item = Handle<N>> {
        self.child.into_iter().filter_map(Handle::from_raw)
    }
}

/// A value that can stand in a tree.
pub(crate) trait TreeNode: Default + Named {
    /// The links last set.
    fn links(&self) -> Links;
    /// Keeps `links`.
    fn set_links(&mut self, links: Links);
}

/// Where what is sought lies, seen from a node.
pub(crate) enum Verdict {
    /// On the left.
    Before,
    /// Here.
    Match,
    /// On the right.
    After,
    /// The node is of no use: end the search here.
    Stop,
}

/// How a search ended.
pub(crate) enum Descent<N> {
    /// At the node that the comparison called a match.
    Found(Handle<N>),
    /// At a missing child, where the sought node would stand.
    Vacant(Vacancy<N>),
    /// At the node for which the comparison said [`Verdict::Stop`].
    Stopped(Handle<N>),
}

/// A place for a new node; good until the tree changes.
pub(crate) struct Vacancy<N> {
    parent: Option<(Handle<N>, Side)>,
}

/// A red-black tree.
pub(crate) struct Root<T> {
    top: u32,
    _nodes: PhantomData<fn() -> T>,
}

impl<T> Root<T> {
    pub(crate) const fn new() -> Self {
        Self {
            top: 0,
            _nodes: PhantomData,
        }
    }
}

// Derived, it would ask the same of `T`.
impl<T> Default for Root<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: TreeNode> Root<T> {
    /// The node that a search begins with.
    #[inline]
    pub(crate) fn top(&self) -> Option<Handle<T::Name>> {
        Handle::from_raw(self.top)
    }

    /// Goes down as `verdict` says.
    #[inline]
    pub(crate) fn descend(
        &self,
        pool: &impl Values<T>,
        mut verdict: impl FnMut(Handle<T::Name>, &T) -> Verdict,
    ) -> Descent<T::Name> {
        let mut parent = None;
        let mut next = self.top();
        while let Some(node) = next {
            let value = &pool[node];
            let side = match verdict(node, value) {
                Verdict::Before => Side::Left,
                Verdict::After => Side::Right,
                Verdict::Match => return Descent::Found(node),
                Verdict::Stop => return Descent::Stopped(node),
            };
            parent = Some((node, side));
            next = Handle::from_raw(value.links().child[side as usize]);
        }
        Descent::Vacant(Vacancy { parent })
    }

    /// Puts `node` where a search ended.
    pub(crate) fn insert(
        &mut self,
        pool: &mut impl Values<T>,
        at: Vacancy<T::Name>,
        node: Handle<T::Name>,
    ) {
        let mut tree = Editor { root: self, pool };
        tree.edit(node, |links| *links = Links::default());
        match at.parent {
            Some((parent, side)) => tree.attach(parent, side, Some(node)),
            None => tree.root.top = node.raw(),
        }
        tree.set_red(node, true);
        tree.settle_red(node);
    }

    /// Takes `node`, which is in this tree, out of it.
    pub(crate) fn remove(&mut self, pool: &mut impl Values<T>, node: Handle<T::Name>) {
        let mut tree = Editor { root: self, pool };
        let gap = tree.cut_out(node);
        if gap.black_is_missing {
            tree.settle_missing_black(gap.child, gap.parent);
        }
    }

    /// Splits the tree into the nodes before a border and those after it.
    ///
    /// `is_before` must be true for all nodes up to some place in the order, and false for the rest.
    /// Visits only nodes near the border: at most `O(log(n)^2)` of `n`.
    pub(crate) fn split(
        self,
        pool: &mut impl Values<T>,
        is_before: impl Fn(&T) -> bool,
    ) -> (Self, Self) {
        let (mut before, mut after) = (Self::new(), Self::new());
        // Most trees of a sharded tree have a single node; it can stay as it is.
        if let Some(top) = self.top().map(|top| &pool[top]) {
            if top.links().child == [0; 2] {
                return match is_before(top) {
                    true => (self, after),
                    false => (before, self),
                };
            }
        }
        let mut bottom = None;
        let mut next = self.top();
        while let Some(node) = next {
            bottom = Some(node);
            next = child(
                pool,
                node,
                match is_before(&pool[node]) {
                    true => Side::Right,
                    false => Side::Left,
                },
            );
        }
        // Go up again: each ancestor and its outer subtree lie farther from the border than all
        // nodes so far.
        let mut next = bottom;
        while let Some(node) = next {
            next = parent(pool, node);
            if is_before(&pool[node]) {
                let first = Self::below(pool, node, Side::Left);
                before = Self::join_around(pool, first, node, before);
            } else {
                let last = Self::below(pool, node, Side::Right);
                after = Self::join_around(pool, after, node, last);
            }
        }
        (before, after)
    }

    /// Joins two trees; all nodes of `before` must come before those of `after`.
    ///
    /// Visits at most `O(log(n))` nodes.
    pub(crate) fn join(pool: &mut impl Values<T>, before: Self, mut after: Self) -> Self {
        let (Some(_), Some(top)) = (before.top(), after.top()) else {
            return if before.top().is_some() {
                before
            } else {
                after
            };
        };
        let middle = outermost(pool, top, Side::Left);
        after.remove(pool, middle);
        Self::join_around(pool, before, middle, after)
    }

    /// Joins two trees and a node that belongs between them.
    fn join_around(
        pool: &mut impl Values<T>,
        before: Self,
        node: Handle<T::Name>,
        after: Self,
    ) -> Self {
        let heights = (before.black_height(pool), after.black_height(pool));
        let (mut higher, lower, side) = match heights.0 >= heights.1 {
            true => (before, after, Side::Right),
            false => (after, before, Side::Left),
        };
        let mut tree = Editor {
            root: &mut higher,
            pool,
        };
        tree.append(side, node, lower.top(), heights.0.abs_diff(heights.1));
        higher
    }

    /// Makes the subtree on one side of `node` a tree of its own.
    fn below(pool: &mut impl Values<T>, node: Handle<T::Name>, side: Side) -> Self {
        let mut root = Self::new();
        if let Some(top) = child(pool, node, side) {
            root.top = top.raw();
            let mut tree = Editor {
                root: &mut root,
                pool,
            };
            tree.set_parent(top, None);
            tree.set_red(top, false);
        }
        root
    }

    /// The number of black nodes on each way down.
    fn black_height(&self, pool: &impl Values<T>) -> usize {
        core::iter::successors(self.top(), |node| child(pool, *node, Side::Left))
            .filter(|node| !is_red(pool, *node))
            .count()
    }

    /// Whether `node`, which is in some tree, is in this one.
    pub(crate) fn contains(&self, pool: &impl Values<T>, node: Handle<T::Name>) -> bool {
        let mut top = node;
        while let Some(above) = parent(pool, top) {
            top = above;
        }
        top.raw() == self.top
    }

    /// Puts `new` exactly where `old` stands.
    pub(crate) fn replace(
        &mut self,
        pool: &mut impl Values<T>,
        old: Handle<T::Name>,
        new: Handle<T::Name>,
    ) {
        let mut tree = Editor { root: self, pool };
        let links = tree.pool[old].links();
        tree.replace_below_parent(old, Some(new));
        tree.pool[new].set_links(links);
        for side in [Side::Left, Side::Right] {
            let child = tree.child(new, side);
            tree.attach(new, side, child);
        }
    }
}

fn parent<T: TreeNode>(pool: &impl Values<T>, node: Handle<T::Name>) -> Option<Handle<T::Name>> {
    Handle::from_raw(pool[node].links().parent_and_red >> 1)
}

fn child<T: TreeNode>(
    pool: &impl Values<T>,
    node: Handle<T::Name>,
    side: Side,
) -> Option<Handle<T::Name>> {
    Handle::from_raw(pool[node].links().child[side as usize])
}

fn is_red<T: TreeNode>(pool: &impl Values<T>, node: Handle<T::Name>) -> bool {
    pool[node].links().parent_and_red & 1 != 0
}

/// The last node on the way down from `node` along one side.
fn outermost<T: TreeNode>(
    pool: &impl Values<T>,
    mut node: Handle<T::Name>,
    side: Side,
) -> Handle<T::Name> {
    while let Some(next) = child(pool, node, side) {
        node = next;
    }
    node
}

/// The place that [`Editor::cut_out`] leaves to be mended.
struct Gap<N> {
    child: Option<Handle<N>>,
    parent: Option<Handle<N>>,
    black_is_missing: bool,
}

/// A tree that is being changed.
struct Editor<'a, T, V> {
    root: &'a mut Root<T>,
    pool: &'a mut V,
}

impl<T: TreeNode, V: Values<T>> Editor<'_, T, V> {
    fn edit(&mut self, node: Handle<T::Name>, change: impl FnOnce(&mut Links)) {
        let value = &mut self.pool[node];
        let mut links = value.links();
        change(&mut links);
        value.set_links(links);
    }

    fn parent(&self, node: Handle<T::Name>) -> Option<Handle<T::Name>> {
        parent(self.pool, node)
    }

    fn child(&self, node: Handle<T::Name>, side: Side) -> Option<Handle<T::Name>> {
        child(self.pool, node, side)
    }

    fn is_red(&self, node: Option<Handle<T::Name>>) -> bool {
        node.is_some_and(|node| is_red(self.pool, node))
    }

    fn set_red(&mut self, node: Handle<T::Name>, red: bool) {
        self.edit(node, |links| {
            links.parent_and_red = links.parent_and_red & !1 | u32::from(red);
        });
    }

    fn set_parent(&mut self, node: Handle<T::Name>, parent: Option<Handle<T::Name>>) {
        self.edit(node, |links| {
            links.parent_and_red = raw_or_zero(parent) << 1 | links.parent_and_red & 1;
        });
    }

    /// Makes `child` the child of `parent` on `side`.
    fn attach(&mut self, parent: Handle<T::Name>, side: Side, child: Option<Handle<T::Name>>) {
        self.edit(parent, |links| {
            links.child[side as usize] = raw_or_zero(child);
        });
        if let Some(child) = child {
            self.set_parent(child, Some(parent));
        }
    }

    fn side_of(&self, parent: Handle<T::Name>, child: Option<Handle<T::Name>>) -> Side {
        if self.child(parent, Side::Left) == child {
            Side::Left
        } else {
            Side::Right
        }
    }

    fn replace_below_parent(&mut self, old: Handle<T::Name>, new: Option<Handle<T::Name>>) {
        match self.parent(old) {
            Some(parent) => self.attach(parent, self.side_of(parent, Some(old)), new),
            None => {
                self.root.top = raw_or_zero(new);
                if let Some(new) = new {
                    self.set_parent(new, None);
                }
            }
        }
    }

    /// Turns the edge between `node` and its child on the other side, which comes to stand above.
    fn rotate(&mut self, node: Handle<T::Name>, towards: Side) {
        let away = towards.other();
        let Some(up) = self.child(node, away) else {
            return;
        };
        let inner = self.child(up, towards);
        self.replace_below_parent(node, Some(up));
        self.attach(node, away, inner);
        self.attach(up, towards, Some(node));
    }

    /// Appends `node` at the outer end of `side`, and beyond it the subtree of `top`. The black height
    /// of that subtree, whose top is black, is `surplus` less than the tree's.
    fn append(
        &mut self,
        side: Side,
        node: Handle<T::Name>,
        top: Option<Handle<T::Name>>,
        mut surplus: usize,
    ) {
        let (mut above, mut beside) = (None, self.root.top());
        while let Some(at) = beside.filter(|at| surplus > 0 || self.is_red(Some(*at))) {
            surplus -= usize::from(!self.is_red(Some(at)));
            (above, beside) = (Some(at), self.child(at, side));
        }
        self.edit(node, |links| *links = Links::default());
        self.attach(node, side.other(), beside);
        self.attach(node, side, top);
        match above {
            Some(above) => self.attach(above, side, Some(node)),
            None => self.root.top = node.raw(),
        }
        self.set_red(node, true);
        self.settle_red(node);
    }

    /// Ends the conflict of a red `node` with a parent that may be red too.
    fn settle_red(&mut self, mut node: Handle<T::Name>) {
        while let Some(parent) = self.parent(node).filter(|p| self.is_red(Some(*p))) {
            // The top is black, so a red parent has a parent.
            let Some(grand) = self.parent(parent) else {
                break;
            };
            let side = self.side_of(grand, Some(parent));
            let uncle = self.child(grand, side.other());
            if let Some(uncle) = uncle.filter(|u| self.is_red(Some(*u))) {
                self.set_red(parent, false);
                self.set_red(uncle, false);
                self.set_red(grand, true);
                node = grand;
                continue;
            }
            if self.side_of(parent, Some(node)) != side {
                self.rotate(parent, side);
            }
            if let Some(up) = self.child(grand, side) {
                self.set_red(up, false);
            }
            self.set_red(grand, true);
            self.rotate(grand, side.other());
            break;
        }
        if let Some(top) = self.root.top() {
            self.set_red(top, false);
        }
    }

    /// Takes `node` out and says where black may be missing.
    fn cut_out(&mut self, node: Handle<T::Name>) -> Gap<T::Name> {
        match (self.child(node, Side::Left), self.child(node, Side::Right)) {
            (Some(left), Some(right)) => self.cut_out_inner(node, left, right),
            (left, right) => {
                let gap = Gap {
                    child: left.or(right),
                    parent: self.parent(node),
                    black_is_missing: !self.is_red(Some(node)),
                };
                self.replace_below_parent(node, gap.child);
                gap
            }
        }
    }

    /// Takes out a `node` with two children: its successor takes its place and colour.
    fn cut_out_inner(
        &mut self,
        node: Handle<T::Name>,
        left: Handle<T::Name>,
        right: Handle<T::Name>,
    ) -> Gap<T::Name> {
        let next = outermost(self.pool, right, Side::Left);
        let child = self.child(next, Side::Right);
        let black_is_missing = !self.is_red(Some(next));
        let parent = if next == right {
            next
        } else {
            let parent = self.parent(next).unwrap_or(right);
            self.attach(parent, Side::Left, child);
            self.attach(next, Side::Right, Some(right));
            parent
        };
        let red = self.is_red(Some(node));
        self.replace_below_parent(node, Some(next));
        self.attach(next, Side::Left, Some(left));
        self.set_red(next, red);
        Gap {
            child,
            parent: Some(parent),
            black_is_missing,
        }
    }

    /// Mends the tree where the ways through `node`, a child of `parent`, lack a black node.
    fn settle_missing_black(
        &mut self,
        mut node: Option<Handle<T::Name>>,
        mut parent: Option<Handle<T::Name>>,
    ) {
        while let Some(above) = parent.filter(|_| !self.is_red(node)) {
            let side = self.side_of(above, node);
            let Some(sibling) = self.black_sibling(above, side) else {
                break;
            };
            let near = self.child(sibling, side);
            let far = self.child(sibling, side.other());
            if !self.is_red(near) && !self.is_red(far) {
                self.set_red(sibling, true);
                node = Some(above);
                parent = self.parent(above);
                continue;
            }
            self.borrow_black(above, sibling, side);
            return;
        }
        if let Some(node) = node {
            self.set_red(node, false);
        }
    }

    /// The other child of `above`, after making sure that it is black.
    fn black_sibling(&mut self, above: Handle<T::Name>, side: Side) -> Option<Handle<T::Name>> {
        let sibling = self.child(above, side.other())?;
        if !self.is_red(Some(sibling)) {
            return Some(sibling);
        }
        self.set_red(sibling, false);
        self.set_red(above, true);
        self.rotate(above, side);
        self.child(above, side.other())
    }

    /// Ends the lack of black on `side` of `above` with the red child that `sibling` has.
    fn borrow_black(&mut self, above: Handle<T::Name>, mut sibling: Handle<T::Name>, side: Side) {
        if !self.is_red(self.child(sibling, side.other())) {
            if let Some(near) = self.child(sibling, side) {
                self.set_red(near, false);
                self.set_red(sibling, true);
                self.rotate(sibling, side.other());
                sibling = near;
            }
        }
        let red = self.is_red(Some(above));
        self.set_red(sibling, red);
        self.set_red(above, false);
        if let Some(far) = self.child(sibling, side.other()) {
            self.set_red(far, false);
        }
        self.rotate(above, side);
    }
}

/// Checks for the KUnit suites of all trees.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod check {
    use super::*;

    /// How many nodes the tree has, if the invariants of the module hold and `in_order`, called
    /// for neighbours, always says yes.
    pub(crate) fn count_nodes<T: TreeNode>(
        root: &Root<T>,
        pool: &impl Values<T>,
        in_order: impl Fn(&T, &T) -> bool,
    ) -> Option<usize> {
        let mut survey = Survey {
            pool,
            nodes: 0,
            last: None,
            in_order,
        };
        if let Some(top) = root.top() {
            if pool[top].links().parent_and_red != 0 {
                return None;
            }
        }
        survey.black_height(root.top())?;
        Some(survey.nodes)
    }

    struct Survey<'a, T: TreeNode, V, F> {
        pool: &'a V,
        nodes: usize,
        last: Option<Handle<T::Name>>,
        in_order: F,
    }

    impl<T: TreeNode, V: Values<T>, F: Fn(&T, &T) -> bool> Survey<'_, T, V, F> {
        fn black_height(&mut self, node: Option<Handle<T::Name>>) -> Option<usize> {
            let Some(node) = node else {
                return Some(0);
            };
            let links = self.pool[node].links();
            let red = links.parent_and_red & 1;
            for child in links.child.map(Handle::from_raw).into_iter().flatten() {
                let below = self.pool[child].links().parent_and_red;
                if below >> 1 != node.raw() || below & red != 0 {
                    return None;
                }
            }
            let left = self.black_height(Handle::from_raw(links.child[0]))?;
            if let Some(last) = self.last {
                if !(self.in_order)(&self.pool[last], &self.pool[node]) {
                    return None;
                }
            }
            self.last = Some(node);
            self.nodes += 1;
            let right = self.black_height(Handle::from_raw(links.child[1]))?;
            (left == right).then_some(left + 1 - red as usize)
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_rbtree)]
mod tests {
    use super::*;
    use crate::{
        containers::{
            handle_table::{
                per_page,
                Stored, //
            },
            pool::Pool, //
        },
        kernel_api::pages::Pages,
        testing::random::Random, //
    };
    use kernel::prelude::*;

    #[derive(Default)]
    struct Number {
        links: Links,
        value: u32,
    }

    impl Named for Number {
        type Name = Self;
    }

    impl Stored for Number {
        type Chunk = [Self; per_page::<Self>()];
        type Memory = Pages;
    }

    impl TreeNode for Number {
        fn links(&self) -> Links {
            self.links
        }

        fn set_links(&mut self, links: Links) {
            self.links = links;
        }
    }

    struct Fixture {
        pool: Pool<Number>,
        root: Root<Number>,
        members: KVec<Handle<Number>>,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                pool: Pool::new(),
                root: Root::new(),
                members: KVec::new(),
            }
        }

        fn add(&mut self, value: u32) -> Result {
            let number = Number {
                value,
                ..Number::default()
            };
            let node = self.pool.insert(number, GFP_KERNEL)?;
            let at = self.root.descend(&self.pool, |_, n| match value < n.value {
                true => Verdict::Before,
                false => Verdict::After,
            });
            if let Descent::Vacant(at) = at {
                self.root.insert(&mut self.pool, at, node);
            }
            self.members.push(node, GFP_KERNEL)?;
            Ok(())
        }

        fn take(&mut self, index: usize) -> Result {
            let last = self.members.len() - 1;
            self.members.swap(index, last);
            if let Some(node) = self.members.pop() {
                self.root.remove(&mut self.pool, node);
                self.pool.remove(node);
            }
            Ok(())
        }

        fn is_sound(&self) -> bool {
            let nodes = check::count_nodes(&self.root, &self.pool, |a, b| a.value <= b.value);
            nodes == Some(self.members.len())
        }
    }

    #[test]
    fn ascending_descending_and_equal_values() -> Result {
        for step in [|n: u32| n, |n| 1000 - n, |_| 5] {
            let mut tree = Fixture::new();
            for n in 0..200 {
                tree.add(step(n))?;
                assert!(tree.is_sound());
            }
        }
        Ok(())
    }

    #[test]
    fn removal_in_any_order() -> Result {
        let mut random = Random::new(1);
        for first in [true, false] {
            let mut tree = Fixture::new();
            for n in 0..150 {
                tree.add(n)?;
            }
            while !tree.members.is_empty() {
                let index = match first {
                    true => 0,
                    false => random.below(tree.members.len()),
                };
                tree.take(index)?;
                assert!(tree.is_sound());
            }
        }
        Ok(())
    }

    #[test]
    fn random_changes() -> Result {
        let mut random = Random::new(2);
        let mut tree = Fixture::new();
        for _ in 0..4000 {
            if tree.members.is_empty() || random.below(100) < 53 {
                tree.add(random.below(64) as u32)?;
            } else {
                tree.take(random.below(tree.members.len()))?;
            }
            assert!(tree.is_sound());
        }
        Ok(())
    }

    /// Splits the tree between the values below `border` and the others, and joins both again.
    fn split_and_join(tree: &mut Fixture, border: u32) {
        let Fixture {
            pool,
            root,
            members,
        } = tree;
        let is_before = |n: &Number| n.value < border;
        let (before, after) = core::mem::take(root).split(pool, is_before);
        for (part, expected) in [(&before, true), (&after, false)] {
            let belongs = |n: &Number| is_before(n) == expected;
            let nodes = check::count_nodes(part, pool, |a, b| {
                a.value <= b.value && belongs(a) && belongs(b)
            });
            let count = members.iter().filter(|node| belongs(&pool[**node]));
            assert_eq!(nodes, Some(count.count()));
        }
        *root = Root::join(pool, before, after);
        assert!(tree.is_sound());
    }

    #[test]
    fn a_tree_is_split_anywhere_and_joined_again() -> Result {
        let mut tree = Fixture::new();
        for count in 0..70 {
            for border in 0..=count {
                split_and_join(&mut tree, border);
            }
            tree.add(count)?;
        }
        Ok(())
    }

    #[test]
    fn trees_of_any_shape_are_split_and_joined() -> Result {
        let mut random = Random::new(3);
        let mut tree = Fixture::new();
        for _ in 0..1000 {
            let change = random.below(40);
            for _ in 0..change {
                match tree.members.len() {
                    0..300 => tree.add(random.below(200) as u32)?,
                    members => tree.take(random.below(members))?,
                }
            }
            for _ in 0..(50 - change).min(tree.members.len()) {
                tree.take(random.below(tree.members.len()))?;
            }
            split_and_join(&mut tree, random.below(202) as u32);
        }
        Ok(())
    }

    #[test]
    fn a_replacement_takes_over_all_links() -> Result {
        let mut tree = Fixture::new();
        for n in 0..60 {
            tree.add(n)?;
        }
        for index in 0..60 {
            let old = tree.members[index];
            let number = Number {
                value: tree.pool[old].value,
                ..Number::default()
            };
            let new = tree.pool.insert(number, GFP_KERNEL)?;
            tree.root.replace(&mut tree.pool, old, new);
            tree.pool.remove(old);
            tree.members[index] = new;
            assert!(tree.is_sound());
        }
        Ok(())
    }
}
