// SPDX-License-Identifier: GPL-2.0

//! The node that leads from a page that is not merged to its equals.

#![deny(unsafe_code)]

use crate::{
    containers::{
        handle::Named,
        handle_table::{
            per_page,
            Stored, //
        },
        rbtree::{
            Links,
            TreeNode, //
        },
        sharded_tree::Keyed, //
    },
    kernel_api::pages::Pages,
    mm::ksm_page::ids::Item, //
};

/// A node of the unstable tree, in it or not. It has the number of the page's item.
#[derive(Default)]
pub(crate) struct UnstableNode {
    links: Links,
    checksum: u32,
}

impl Named for UnstableNode {
    type Name = Item;
}

impl Stored for UnstableNode {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Pages;
}

const _: () = assert!(size_of::<UnstableNode>() == 16);

impl UnstableNode {
    pub(crate) fn new(checksum: u32) -> Self {
        Self {
            checksum,
            ..Self::default()
        }
    }

    /// Notes the checksum of the page's content; the node is in no tree.
    pub(crate) fn set_checksum(&mut self, checksum: u32) {
        self.checksum = checksum;
    }
}

impl TreeNode for UnstableNode {
    #[inline]
    fn links(&self) -> Links {
        self.links
    }

    #[inline]
    fn set_links(&mut self, links: Links) {
        self.links = links;
    }
}

impl Keyed for UnstableNode {
    #[inline]
    fn checksum(&self) -> u32 {
        self.checksum
    }
}
