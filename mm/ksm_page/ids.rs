// SPDX-License-Identifier: GPL-2.0

//! How records name each other.

#![deny(unsafe_code)]

use crate::containers::handle::Handle;

/// The [`Named::Name`](crate::containers::handle::Named::Name) of all records of one page.
pub(crate) enum Item {}

/// Names a page of an address space: its rmap_item, and its node for the unstable tree.
pub(crate) type ItemId = Handle<Item>;

/// The [`Named::Name`](crate::containers::handle::Named::Name) of stable nodes.
pub(crate) enum Node {}

/// Names a stable node.
pub(crate) type NodeId = Handle<Node>;

/// The [`Named::Name`](crate::containers::handle::Named::Name) of address spaces.
pub(crate) enum Space {}

/// Names a tracked address space.
pub(crate) type SpaceId = Handle<Space>;

/// Names a set of pages that may be merged with each other.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct PartitionId(u32);

impl PartitionId {
    /// Undoes [`PartitionId::raw`].
    pub(crate) fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The name as a number.
    pub(crate) fn raw(self) -> u32 {
        self.0
    }
}
