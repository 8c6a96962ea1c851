// SPDX-License-Identifier: GPL-2.0

//! A vma that is none.

/// Stands for what the merged pages of a vma have in common.
pub(crate) struct MergedVma;

impl MergedVma {
    pub(crate) fn index(&self, page: u32) -> usize {
        page as usize
    }
}
