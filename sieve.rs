// SPDX-License-Identifier: GPL-2.0

//! Which of the pages that a walk meets need attention.
//!
//! Most do not: a page that is merged stays merged, and the smart scan passes over pages that have
//! found no equal for long. While the walk goes through the page tables, this goes through the list
//! of items beside it, and recognises them by a few loads, without a reference to any page.

#![deny(unsafe_code)]

use crate::{
    control::Ksm,
    mm::{
        ksm_folio::Anchor,
        walk::Seen, //
    },
    partition::Partitions,
    pool::Pool,
    rmap_item::{
        ListCursor,
        Pass,
        Place,
        RmapItem,
        TrackedMm, //
    },
    stable_node::StableNode,
    table::{
        Handle,
        Table, //
    },
    unstable_node::UnstableNode, //
};

/// The items, and where they stand.
pub(crate) struct Lists<'a> {
    pub(crate) mms: &'a Pool<TrackedMm>,
    pub(crate) items: &'a mut Pool<RmapItem>,
    pub(crate) unstable_nodes: &'a mut Table<UnstableNode>,
    pub(crate) nodes: &'a Pool<StableNode>,
    pub(crate) partitions: &'a mut Partitions,
}

/// See the [module's description](self).
pub(crate) struct Sieve<'a> {
    ksm: &'a Ksm,
    lists: Lists<'a>,
    pass: Pass,
    by_node: bool,
    /// The place in the list that the walk has reached.
    ahead: ListCursor,
    /// The last place before which there is nothing left to be done.
    settled: ListCursor,
    is_settled: bool,
    merged: usize,
}

impl<'a> Sieve<'a> {
    /// For pages whose items stand behind `cursor`.
    ///
    /// With `by_node` all KSM pages are kept: they may have moved to another NUMA node.
    pub(crate) fn new(
        ksm: &'a Ksm,
        lists: Lists<'a>,
        pass: Pass,
        by_node: bool,
        cursor: ListCursor,
    ) -> Self {
        Self {
            ksm,
            lists,
            pass,
            by_node,
            ahead: cursor,
            settled: cursor,
            is_settled: true,
            merged: 0,
        }
    }

    /// Whether the page at `address` needs attention; to be asked once for each, in their order.
    #[inline]
    pub(crate) fn keeps(&mut self, address: usize, page: Seen<'_>) -> bool {
        let passed = self.item_at(address).filter(|item| match page {
            Seen::Ksm(anchor) => self.is_known(*item, anchor),
            Seen::Anonymous => self.is_skipped(*item),
        });
        let Some(item) = passed else {
            self.is_settled = false;
            return true;
        };
        self.lists.items[item].note_met(self.pass);
        if self.is_settled {
            self.settled = self.ahead;
        }
        false
    }

    /// The place from which to go on with the list, and how many merged pages were passed over.
    pub(crate) fn finish(self) -> (ListCursor, usize) {
        (self.settled, self.merged)
    }

    /// The item for `address`; those before it that no page was met for stay where they are.
    fn item_at(&mut self, address: usize) -> Option<Handle<RmapItem>> {
        while let Some(item) = self.ahead.next(self.lists.mms, self.lists.items) {
            let found = self.lists.items[item].address();
            if found > address {
                break;
            }
            self.ahead.step_over(item);
            if found == address {
                return Some(item);
            }
            self.is_settled = false;
        }
        None
    }

    /// Whether the page of `item` is merged, with that of `anchor`, and that is known.
    fn is_known(&mut self, item: Handle<RmapItem>, anchor: &Anchor) -> bool {
        let Place::Stable(node) = self.lists.items[item].place() else {
            return false;
        };
        // Nodes lie in the order in which pages were merged: where many are met, those of
        // neighbours are in a cache already, and their anchors are not.
        let known = !self.by_node && self.lists.nodes[node].has(anchor);
        self.merged += usize::from(known);
        known
    }

    /// Whether the smart scan passes over the page of `item`, which then is in no tree.
    fn is_skipped(&mut self, item: Handle<RmapItem>) -> bool {
        if !self.ksm.tunables.smart_scan.is_set() || !self.lists.items[item].is_to_be_skipped() {
            return false;
        }
        let Lists {
            items,
            unstable_nodes,
            partitions,
            ..
        } = &mut self.lists;
        if items[item].is_unshared() {
            partitions.leave_unstable(items, unstable_nodes, item);
            self.ksm.stats.pages_unshared.sub(1);
        }
        self.ksm.stats.pages_skipped.add(1);
        true
    }
}
