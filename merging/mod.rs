// SPDX-License-Identifier: GPL-2.0

//! Merging, and undoing it.

pub(crate) mod lookup;
#[cfg(CONFIG_MEMORY_HOTREMOVE)]
pub(crate) mod memory_offline;
pub(crate) mod merge;
pub(crate) mod unmerge;
