// SPDX-License-Identifier: GPL-2.0

//! The data structures of `ksm_rs` at the size of a host of terabytes.
//!
//! This compiles the module's own sources, outside of a kernel. Where they use what a program does
//! not have, there is something in its place: the crate `kernel`, and the modules here that have the
//! names of others. Pages are numbers.

// The sources have functions for the rest of the module.
#![allow(dead_code)]

// The kernel has this part of its crate as a crate of its own.
extern crate kernel as pin_init;

mod area;
#[cfg(test)]
mod checksum;
#[cfg(test)]
mod counted;
#[path = "../../fake_page.rs"]
mod fake_page;
#[path = "../../forest.rs"]
mod forest;
#[path = "../../gfp.rs"]
mod gfp;
mod kthread;
#[path = "../../mappings.rs"]
mod mappings;
mod mm;
#[path = "../../paged.rs"]
mod paged;
#[path = "../../partition.rs"]
mod partition;
#[path = "../../pool.rs"]
mod pool;
#[path = "../../random.rs"]
mod random;
#[path = "../../rbtree.rs"]
mod rbtree;
#[path = "../../rmap_item.rs"]
mod rmap_item;
mod slots;
#[path = "../../stable_node.rs"]
mod stable_node;
#[path = "../../stable_tree.rs"]
mod stable_tree;
#[path = "../../table.rs"]
mod table;
#[path = "../../unstable_node.rs"]
mod unstable_node;
#[path = "../../unstable_tree.rs"]
mod unstable_tree;
#[cfg(test)]
mod work;

fn main() {}
