// SPDX-License-Identifier: GPL-2.0

//! Pages that are only numbers, for the KUnit suites of the trees.

#![deny(unsafe_code)]

use crate::{
    containers::{
        handle::{
            Handle,
            Named, //
        },
        handle_table::{
            per_page,
            Stored, //
        },
        rbtree::{
            Links,
            TreeNode,
            Verdict, //
        },
        sharded_tree::Keyed, //
    },
    kernel_api::pages::Pages,
    stable_tree::{
        Siblings,
        StableEntry, //
    }, //
};
use core::cmp::Ordering;

/// A node of either tree.
#[derive(Default)]
pub(crate) struct FakePage {
    links: Links,
    siblings: Siblings<FakePage>,
    checksum: u32,
    /// Stands for the page's bytes.
    pub(crate) content: usize,
    /// The page was unmapped.
    pub(crate) gone: bool,
    /// No further mapping may share the page.
    pub(crate) full: bool,
}

impl FakePage {
    pub(crate) fn new(checksum: u32, content: usize) -> Self {
        Self {
            checksum,
            content,
            ..Self::default()
        }
    }

    /// Where a page of this `content` stands, seen from here.
    pub(crate) fn verdict(&self, content: usize) -> Verdict {
        if self.gone {
            return Verdict::Stop;
        }
        match content.cmp(&self.content) {
            Ordering::Less => Verdict::Before,
            Ordering::Equal => Verdict::Match,
            Ordering::Greater => Verdict::After,
        }
    }
}

impl Named for FakePage {
    type Name = Self;
}

impl Stored for FakePage {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Pages;
}

impl TreeNode for FakePage {
    fn links(&self) -> Links {
        self.links
    }

    fn set_links(&mut self, links: Links) {
        self.links = links;
    }
}

impl Keyed for FakePage {
    fn checksum(&self) -> u32 {
        self.checksum
    }
}

impl StableEntry for FakePage {
    fn siblings(&self) -> Siblings<Self> {
        self.siblings
    }

    fn set_siblings(&mut self, siblings: Siblings<Self>) {
        self.siblings = siblings;
    }

    fn has_room(&self) -> bool {
        !self.full
    }
}

/// Shorthand for the suites.
pub(crate) type FakeHandle = Handle<FakePage>;
