// SPDX-License-Identifier: GPL-2.0

//! Containers whose values are named by handles, for hundreds of millions of small values.

pub(crate) mod handle;
pub(crate) mod handle_table;
pub(crate) mod paged;
pub(crate) mod pool;
pub(crate) mod rbtree;
pub(crate) mod sharded_tree;
