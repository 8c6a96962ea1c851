// SPDX-License-Identifier: GPL-2.0

//! The records of pages.

#[path = "../../../records/partition.rs"]
pub(crate) mod partition;
pub(crate) mod registry;
#[path = "../../../records/stable_node.rs"]
pub(crate) mod stable_node;
#[path = "../../../records/unstable_node.rs"]
pub(crate) mod unstable_node;
