// SPDX-License-Identifier: GPL-2.0

//! Stable nodes without their pages.

use crate::mm::ksm_page::{ids::NodeId, mappings::Mappings, node_state::NodeState};
use kernel::{alloc::AllocError, prelude::*};
use std::ops::{Deref, DerefMut};

/// Owns all anchors.
pub(crate) trait AnchorOwner {}

/// As large as what a page points to, and with the same notes and mappings.
pub(crate) struct Anchor {
    pub(crate) node: NodeId,
    pub(crate) state: NodeState,
    pub(crate) mappings: Mappings,
    _pfn: usize,
}

const _: () = assert!(size_of::<Anchor>() == 64);

/// An anchor, which goes with this.
pub(crate) struct OwnedAnchor(KBox<Anchor>);

impl OwnedAnchor {
    pub(crate) fn new(
        node: NodeId,
        state: NodeState,
        mappings: Mappings,
    ) -> Result<Self, AllocError> {
        let anchor = Anchor {
            node,
            state,
            mappings,
            _pfn: 0,
        };
        Ok(Self(KBox::new(anchor, GFP_KERNEL)?))
    }
}

impl Deref for OwnedAnchor {
    type Target = Anchor;

    fn deref(&self) -> &Anchor {
        &self.0
    }
}

impl DerefMut for OwnedAnchor {
    fn deref_mut(&mut self) -> &mut Anchor {
        &mut self.0
    }
}
