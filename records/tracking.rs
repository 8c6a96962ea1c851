// SPDX-License-Identifier: GPL-2.0

//! Address spaces, and the lists of their items.

#![deny(unsafe_code)]

use super::Records;
use crate::{
    kernel_api::{
        gfp,
        kthread, //
    },
    mm::{
        address_space::{
            count,
            reset,
            Counter, //
        },
        domain::Domain,
        ksm_page::ids::{
            ItemId,
            SpaceId, //
        }, //
    },
    records::registry::MmSlot,
    rmap_item::{
        ListCursor,
        RmapItem,
        TrackedMm, //
    }, //
};
use kernel::{
    page::PAGE_SIZE,
    sync::Arc, //
};

/// Items that are gone past, or freed, between two chances to end a step.
pub(crate) const ITEMS_AT_ONCE: usize = 64;

/// An item for a page.
pub(crate) struct ItemFor {
    pub(crate) item: ItemId,
    /// Nothing was known of the page.
    pub(crate) is_new: bool,
}

impl Records {
    /// The address space of `slot`, if there are items of it.
    pub(crate) fn tracked(&self, slot: &MmSlot) -> Option<SpaceId> {
        SpaceId::from_raw(slot.tracked())
    }

    /// As [`Records::tracked`], after making it so, in `domain`.
    pub(super) fn track(&mut self, slot: &Arc<MmSlot>, domain: Domain) -> Option<SpaceId> {
        if let Some(space) = self.tracked(slot) {
            return Some(space);
        }
        let space = self
            .spaces
            .insert(TrackedMm::new(slot.clone()), gfp::for_item())
            .ok()?;
        slot.set_domain(domain);
        slot.set_tracked(space.raw());
        Some(space)
    }

    /// Ends the tracking of the address space of `slot` if there are no items of it; returns whether
    /// there are none.
    pub(crate) fn end_tracking(&mut self, slot: &MmSlot) -> bool {
        let Some(space) = self.tracked(slot) else {
            return true;
        };
        let is_empty = self.spaces[space].is_empty();
        if is_empty {
            slot.set_tracked(0);
            self.spaces.remove(space);
        }
        is_empty
    }

    /// The item for `address` in the address space of `slot`, which is in `domain`; `None` without memory for one, or
    /// without a handle.
    ///
    /// `cursor` is the place in the list of items, and stands behind this one then. Items before it
    /// are settled. With `smart_scan` a new item has gone through the first of the scans that the
    /// smart scan asks of it.
    pub(crate) fn item_at(
        &mut self,
        cursor: &mut Option<ListCursor>,
        (slot, domain): (&Arc<MmSlot>, Domain),
        address: usize,
        smart_scan: bool,
    ) -> Option<ItemFor> {
        let cursor = match cursor {
            Some(cursor) => cursor,
            none => none.insert(ListCursor::front(self.track(slot, domain)?)),
        };
        while let Some(item) = cursor.next(&self.spaces, &self.items) {
            let next = self.items[item].address();
            if next > address {
                break;
            }
            if next == address {
                cursor.step_over(item);
                return Some(ItemFor {
                    item,
                    is_new: false,
                });
            }
            self.pass_or_collect(cursor, item);
        }
        let item = self.new_item(cursor, address, smart_scan)?;
        Some(ItemFor { item, is_new: true })
    }

    pub(super) fn new_item(
        &mut self,
        cursor: &mut ListCursor,
        address: usize,
        smart_scan: bool,
    ) -> Option<ItemId> {
        debug_assert!(address % PAGE_SIZE == 0);
        let mut item = RmapItem::new(cursor.space(), address);
        if smart_scan {
            item.is_to_be_skipped();
        }
        let item = self.items.insert(item, gfp::for_item()).ok()?;
        cursor.insert(&mut self.spaces, &mut self.items, item);
        self.count_items(cursor.space(), 1);
        Some(item)
    }

    /// Goes past `item`, which is the next at `cursor`, and frees it if this scan has met no page
    /// for it.
    fn pass_or_collect(&mut self, cursor: &mut ListCursor, item: ItemId) {
        match self.items[item].was_met(self.scan) {
            true => cursor.step_over(item),
            false => self.free_item(cursor, item),
        }
    }

    /// Frees `item`, which is the next at `cursor`.
    pub(crate) fn free_item(&mut self, cursor: &mut ListCursor, item: ItemId) {
        self.free_next(cursor, item);
        self.count_items(cursor.space(), -1);
    }

    /// Goes past the items of pages below `end`, but no more than [`ITEMS_AT_ONCE`], and frees those
    /// that this scan has met no page for. Returns for how many: if that is fewer, it was all.
    pub(crate) fn settle_some(&mut self, cursor: &mut ListCursor, end: usize) -> usize {
        for passed in 0..ITEMS_AT_ONCE {
            match cursor.next(&self.spaces, &self.items) {
                Some(item) if self.items[item].address() < end => {
                    self.pass_or_collect(cursor, item);
                }
                _ => return passed,
            }
        }
        ITEMS_AT_ONCE
    }

    /// Frees the first items of the address space of `slot`, but no more than [`ITEMS_AT_ONCE`].
    /// Returns how many: if that is fewer, it was all, and the address space is not tracked any more.
    pub(crate) fn collect_some(&mut self, slot: &MmSlot) -> usize {
        let Some(space) = self.tracked(slot) else {
            return 0;
        };
        let mut cursor = ListCursor::front(space);
        let mut freed = 0;
        while freed < ITEMS_AT_ONCE {
            let Some(item) = cursor.next(&self.spaces, &self.items) else {
                break;
            };
            self.free_next(&mut cursor, item);
            freed += 1;
        }
        self.count_items(space, -(freed as isize));
        if freed < ITEMS_AT_ONCE {
            self.end_tracking(slot);
        }
        freed
    }

    /// Frees all items of the address space of `slot`, in as many rounds as they need.
    pub(crate) fn collect_all(&mut self, slot: &MmSlot) {
        while self.collect_some(slot) == ITEMS_AT_ONCE {
            kthread::cond_resched();
        }
    }

    pub(super) fn free_next(&mut self, cursor: &mut ListCursor, item: ItemId) {
        self.leave_tree(item);
        self.forget_checksum(item);
        cursor.unlink(&mut self.spaces, &mut self.items, item);
        self.items.remove(item);
        if self.items.len() == 0 {
            self.unstable_nodes.clear();
        }
    }

    /// Forgets all items at once, unless there are stable nodes, which refer to some. Returns whether.
    pub(crate) fn forget_items(&mut self) -> bool {
        if self.nodes.len() > 0 {
            return false;
        }
        self.partitions.forget_unstable();
        self.items.clear();
        self.unstable_nodes.clear();
        self.counters.rmap_items.set(0);
        self.counters.pages_unshared.set(0);
        self.spaces.for_each_mut(|space| {
            space.forget_items();
            if let Some(slot) = space.slot() {
                reset(slot.mm(), Counter::RmapItems);
            }
        });
        true
    }

    /// Counts items that came or went.
    pub(super) fn count_items(&self, space: SpaceId, change: isize) {
        if let Some(slot) = self.spaces[space].slot() {
            count(slot.mm(), Counter::RmapItems, change);
        }
        self.counters.rmap_items.set(self.items.len());
    }
}
