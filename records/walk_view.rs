// SPDX-License-Identifier: GPL-2.0

//! The records beside a walk over page tables: what it may look at and note under its locks.

#![deny(unsafe_code)]

use super::{
    stable_node::StableNode,
    waiting::RENEWAL_SCANS,
    Records, //
};
use crate::{
    containers::pool::Pool,
    mm::ksm_page::{
        ids::ItemId,
        ksm_folio::{
            Anchor,
            AnchorOwner, //
        }, //
    },
    rmap_item::{
        ListCursor,
        Place,
        RmapItem,
        ScanNumber,
        TrackedMm, //
    }, //
};

/// Full scans in which a page that nobody has touched is passed over, up to the next one in which it is looked at
/// anyway: a CPU may have touched it unseen, by an entry in its TLB, or somebody else have taken notice first. As a
/// multiple of the scans between two searches, it leaves a page to be looked at in one in which it looks for its equals.
pub(crate) const SCANS_UNTOUCHED: usize = 2 * RENEWAL_SCANS as usize;

/// See the [module's description](self). No item comes or goes, and no stable node.
pub(crate) struct WalkView<'a> {
    spaces: &'a Pool<TrackedMm>,
    items: &'a mut Pool<RmapItem>,
    nodes: &'a Pool<StableNode>,
    scan: ScanNumber,
    scans: u32,
    /// KSM pages may have moved to another NUMA node, and so into another partition.
    by_node: bool,
}

impl Records {
    /// The records as a walk may use them.
    pub(crate) fn walk_view(&mut self) -> WalkView<'_> {
        WalkView {
            by_node: self.partitions.by_node(),
            spaces: &self.spaces,
            items: &mut self.items,
            nodes: &self.nodes,
            scan: self.scan,
            scans: self.scans,
        }
    }
}

impl<'a> WalkView<'a> {
    /// The owner of all stable nodes.
    pub(crate) fn nodes(&self) -> &'a (impl AnchorOwner + use<'a>) {
        self.nodes
    }

    /// The item after `cursor`, and its address.
    #[inline]
    pub(crate) fn next(&self, cursor: &ListCursor) -> Option<(ItemId, usize)> {
        let item = cursor.next(self.spaces, self.items)?;
        Some((item, self.items[item].address()))
    }

    /// Passes over the page of `item`, a KSM page with this anchor, if the item is one of its
    /// mappings and it is where it belongs; returns whether.
    #[inline]
    pub(crate) fn pass_merged(&mut self, item: ItemId, anchor: &Anchor) -> bool {
        let item = &mut self.items[item];
        // Nodes lie in the order in which pages were merged: where many are met, those of neighbours
        // are in a cache already, and their anchors are not.
        let node = item.place().node().filter(|_| !self.by_node);
        let is_ours = node.is_some_and(|node| self.nodes[node].has(anchor));
        if is_ours {
            item.note_met(self.scan);
        }
        is_ours
    }

    /// Passes over the page of `item`, which is not merged, if the smart scan skips it this time;
    /// returns whether. To be asked once a scan.
    #[inline]
    pub(crate) fn pass_skipped(&mut self, item: ItemId) -> bool {
        let item = &mut self.items[item];
        let is_skipped = item.is_to_be_skipped();
        if is_skipped {
            item.note_met(self.scan);
        }
        is_skipped
    }

    /// Passes over the page of `item`, which nobody has touched since the last look, if it waits for an equal
    /// with what it held then, and is not due; returns whether.
    #[inline]
    pub(crate) fn pass_untouched(&mut self, item: ItemId) -> bool {
        let may_pass = self.when_untouched(item) == Untouched::Passed;
        if may_pass {
            self.items[item].note_met(self.scan);
        }
        may_pass
    }

    /// What happens in this scan to the page of `item` if nobody has touched it.
    #[inline]
    pub(crate) fn when_untouched(&self, item: ItemId) -> Untouched {
        let is_due = (item.raw() as usize + self.scans as usize) % SCANS_UNTOUCHED == 0;
        match (self.items[item].place(), is_due) {
            (Place::Unstable, true) => Untouched::Due,
            (Place::Unstable, false) => Untouched::Passed,
            _ => Untouched::Unknown,
        }
    }
}

/// What happens to a page that nobody has touched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Untouched {
    /// It is passed over.
    Passed,
    /// It is looked at anyway, as is done after each [`SCANS_UNTOUCHED`] scans.
    Due,
    /// Nobody knows what it held before, so it is looked at unless there is another reason not to.
    Unknown,
}
