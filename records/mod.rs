// SPDX-License-Identifier: GPL-2.0

//! What is known of address spaces and their pages.

pub(crate) mod partition;
pub(crate) mod registry;
pub(crate) mod stable_node;
pub(crate) mod tracking;
pub(crate) mod unstable_node;
