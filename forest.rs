// SPDX-License-Identifier: GPL-2.0

//! Many small red-black trees that are searched as one.
//!
//! The top bits of a checksum choose the tree, so a search begins [`SHARD_BITS`] levels further
//! down than in one tree of the same size: levels that would each be a cache miss.

#![deny(unsafe_code)]

use crate::{
    pool::{
        Handle,
        Pool, //
    },
    rbtree::{
        Descent,
        Root,
        TreeNode,
        Vacancy,
        Verdict, //
    }, //
};
use core::cmp::Ordering;
use kernel::prelude::*;

/// 2^12 roots take 16 KiB, and 2^20 pages make trees of 256 nodes.
const SHARD_BITS: u32 = 12;

/// A tree node that has the checksum of a page's content.
pub(crate) trait Keyed: TreeNode {
    /// The checksum; may not change while the node is in a tree.
    fn checksum(&self) -> u32;
}

/// See the [module's description](self).
pub(crate) struct Forest<T> {
    roots: KVVec<Root<T>>,
}

impl<T: Keyed> Forest<T> {
    pub(crate) fn new() -> Result<Self> {
        let mut roots = KVVec::with_capacity(1 << SHARD_BITS, GFP_KERNEL)?;
        for _ in 0..1 << SHARD_BITS {
            roots.push(Root::new(), GFP_KERNEL)?;
        }
        Ok(Self { roots })
    }

    /// Searches by checksum, and asks `compare` only where checksums are equal.
    #[inline]
    pub(crate) fn descend(
        &self,
        pool: &Pool<T>,
        checksum: u32,
        mut compare: impl FnMut(Handle<T>, &T) -> Verdict,
    ) -> Descent<T> {
        self.roots[shard(checksum)].descend(pool, |handle, node| {
            match checksum.cmp(&node.checksum()) {
                Ordering::Less => Verdict::Before,
                Ordering::Greater => Verdict::After,
                Ordering::Equal => compare(handle, node),
            }
        })
    }

    /// Puts `node` where [`Forest::descend`] for its checksum has ended.
    pub(crate) fn insert(&mut self, pool: &mut Pool<T>, at: Vacancy<T>, node: Handle<T>) {
        self.root_of(pool, node).insert(pool, at, node);
    }

    /// Whether `node`, which is in some forest, is in this one.
    pub(crate) fn contains(&self, pool: &Pool<T>, node: Handle<T>) -> bool {
        self.roots[shard(pool[node].checksum())].contains(pool, node)
    }

    /// Takes out `node`, which is in one of the trees.
    pub(crate) fn remove(&mut self, pool: &mut Pool<T>, node: Handle<T>) {
        self.root_of(pool, node).remove(pool, node);
    }

    /// Puts `new`, which has the same checksum, in the place of `old`.
    pub(crate) fn replace(&mut self, pool: &mut Pool<T>, old: Handle<T>, new: Handle<T>) {
        self.root_of(pool, old).replace(pool, old, new);
    }

    /// Forgets all nodes at once; their links mean nothing from now on.
    pub(crate) fn forget(&mut self) {
        for root in &mut self.roots {
            *root = Root::new();
        }
    }

    fn root_of(&mut self, pool: &Pool<T>, node: Handle<T>) -> &mut Root<T> {
        &mut self.roots[shard(pool[node].checksum())]
    }

    /// How many nodes there are, if all the trees are sound and in order.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn count_nodes(
        &self,
        pool: &Pool<T>,
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

fn shard(checksum: u32) -> usize {
    (checksum >> (u32::BITS - SHARD_BITS)) as usize
}
