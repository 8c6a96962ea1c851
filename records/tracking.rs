// SPDX-License-Identifier: GPL-2.0

//! Keeping track of items and nodes, and collecting those that nothing stands behind any more.

#![deny(unsafe_code)]

use crate::{
    containers::handle::Handle,
    kernel_api::{
        gfp,
        kthread, //
    },
    ksmd::Ksm,
    mm::{
        address_space::{
            count,
            Counter, //
        },
        folio::{
            LockedFolio,
            PinnedPage, //
        },
        ksm_page::{
            ids::{
                ItemId,
                NodeId,
                PartitionId,
                SpaceId, //
            },
            mappings::Mapping,
            trace, //
        }, //
    },
    page::checksum,
    records::{
        registry::MmSlot,
        unstable_node::UnstableNode, //
    },
    rmap_item::{
        ListCursor,
        Place,
        TrackedMm, //
    },
    scan::Scanner, //
};
use kernel::{
    alloc::AllocError,
    prelude::*,
    sync::Arc, //
};

/// Items that are gone past, or freed, between two chances to end a step.
pub(crate) const ITEMS_AT_ONCE: usize = 64;

/// Mappings of a node that are taken from it between two chances for others to run.
const MAPPINGS_AT_ONCE: usize = 256;

impl Scanner {
    /// The tracked address space of `slot`, if there are items of it.
    pub(crate) fn tracked(&self, slot: &MmSlot) -> Option<SpaceId> {
        Handle::from_raw(slot.tracked())
    }

    /// As [`Scanner::tracked`], after making it so.
    pub(crate) fn track(&mut self, slot: &Arc<MmSlot>) -> Option<SpaceId> {
        if let Some(mm) = self.tracked(slot) {
            return Some(mm);
        }
        let mm = self
            .mms
            .insert(TrackedMm::new(slot.clone()), gfp::for_item())
            .ok()?;
        slot.set_tracked(mm.raw());
        Some(mm)
    }

    /// Ends the visit to the address space of `slot`, which is not tracked any more if there are no
    /// items.
    pub(crate) fn leave_slot(&mut self, ksm: &Ksm, slot: &Arc<MmSlot>) {
        if let Some(mm) = self.tracked(slot) {
            if !self.mms[mm].is_empty() {
                return;
            }
            self.end_tracking(slot, mm);
        }
        ksm.slots.release(slot);
    }

    /// Ends the tracking of `mm`, that of `slot`, of which there are no items.
    pub(crate) fn end_tracking(&mut self, slot: &MmSlot, mm: SpaceId) {
        slot.set_tracked(0);
        self.mms.remove(mm);
    }

    /// Counts items that came or went.
    pub(crate) fn count_items(&self, ksm: &Ksm, mm: SpaceId, change: isize) {
        if let Some(slot) = self.mms[mm].slot() {
            count(slot.mm(), Counter::RmapItems, change);
        }
        ksm.stats.rmap_items.set(self.items.len());
    }

    fn free_next(&mut self, ksm: &Ksm, cursor: &mut ListCursor, item: ItemId) {
        self.leave_tree(ksm, item);
        self.drop_unstable_node(item);
        cursor.unlink(&mut self.mms, &mut self.items, item);
        self.items.remove(item);
        if self.items.len() == 0 {
            self.unstable_nodes.clear();
        }
    }

    /// Lets the page of `item`, which is not merged, have a node for an unstable tree.
    pub(crate) fn ensure_unstable_node(&mut self, item: ItemId) -> Result<(), AllocError> {
        if self.has_unstable_node(item) {
            return Ok(());
        }
        let new = UnstableNode::new(checksum::UNKNOWN);
        self.unstable_nodes.put(item, new, gfp::for_item())
    }

    /// Whether the page of `item` has a node for an unstable tree.
    pub(crate) fn has_unstable_node(&self, item: ItemId) -> bool {
        self.unstable_nodes.contains(item)
    }

    /// Frees what [`Scanner::ensure_unstable_node`] has made, if it has; the page is merged or gone.
    pub(crate) fn drop_unstable_node(&mut self, item: ItemId) {
        if self.has_unstable_node(item) {
            self.unstable_nodes.remove(item);
        }
    }

    /// Goes past `item`, which is the next at `cursor`, and frees it if this scan has met no page
    /// for it.
    pub(crate) fn pass_or_collect(&mut self, ksm: &Ksm, cursor: &mut ListCursor, item: ItemId) {
        match self.items[item].was_met(self.pass) {
            true => cursor.step_over(item),
            false => {
                self.free_next(ksm, cursor, item);
                self.count_items(ksm, cursor.mm(), -1);
            }
        }
    }

    /// As [`Scanner::pass_or_collect`], for the items of pages below `end`, but for no more than
    /// [`ITEMS_AT_ONCE`]. Returns for how many: if that is fewer, it was all.
    pub(crate) fn settle_some(&mut self, ksm: &Ksm, cursor: &mut ListCursor, end: usize) -> usize {
        for passed in 0..ITEMS_AT_ONCE {
            match cursor.next(&self.mms, &self.items) {
                Some(item) if self.items[item].address() < end => {
                    self.pass_or_collect(ksm, cursor, item);
                }
                _ => return passed,
            }
        }
        ITEMS_AT_ONCE
    }

    /// Frees the first items of `mm`, but no more than [`ITEMS_AT_ONCE`]. Returns how many: if that
    /// is fewer, it was all.
    pub(crate) fn collect_some(&mut self, ksm: &Ksm, mm: SpaceId) -> usize {
        let mut cursor = ListCursor::front(mm);
        let mut freed = 0;
        while freed < ITEMS_AT_ONCE {
            let Some(item) = cursor.next(&self.mms, &self.items) else {
                break;
            };
            self.free_next(ksm, &mut cursor, item);
            freed += 1;
        }
        self.count_items(ksm, mm, -(freed as isize));
        freed
    }

    /// Frees all items of the address space of `slot`, whatever their number.
    pub(crate) fn collect_all(&mut self, ksm: &Ksm, slot: &MmSlot) {
        if let Some(mm) = self.tracked(slot) {
            while self.collect_some(ksm, mm) == ITEMS_AT_ONCE {
                kthread::cond_resched();
            }
            self.end_tracking(slot, mm);
        }
    }

    /// Takes `item` out of the tree that it is in.
    pub(crate) fn leave_tree(&mut self, ksm: &Ksm, item: ItemId) {
        match self.items[item].place() {
            Place::Nowhere => {}
            Place::Unstable => {
                let (items, nodes) = (&mut self.items, &mut self.unstable_nodes);
                self.partitions.leave_unstable(items, nodes, item);
                ksm.stats.pages_unshared.sub(1);
            }
            Place::Stable(node) => self.detach(ksm, node, item),
        }
    }

    /// Makes `mapping` one of the mappings of `node`, whose page has the lock `locked`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the page is not that of the node, any more; `ENOMEM`.
    pub(crate) fn attach(
        &mut self,
        ksm: &Ksm,
        node: NodeId,
        locked: &mut LockedFolio<'_>,
        mapping: Mapping,
    ) -> Result {
        let item = mapping.item;
        let anchor = self.nodes[node].anchor.as_ref().ok_or(ENOENT)?;
        let Some(mut folio) = anchor.target(locked) else {
            self.remove_stale(ksm, node);
            return Err(ENOENT);
        };
        let mappings = folio.mappings_mut();
        let index = mappings.len();
        mappings.push(mapping)?;
        self.note_attached(ksm, node, item, index);
        Ok(())
    }

    /// Notes that the mapping of `item`, which had none, is number `index` of `node`.
    pub(crate) fn note_attached(&mut self, ksm: &Ksm, node: NodeId, item: ItemId, index: usize) {
        let mm = self.items[item].mm();
        self.items[item].note_merged(node, index);
        match index {
            0 => ksm.stats.pages_shared.add(1),
            _ => ksm.stats.pages_sharing.add(1),
        }
        if let Some(mm) = mm {
            self.count_merging(mm, 1);
        }
        self.note_mappings(ksm, node, index + 1);
    }

    /// Notes that `mapping` is gone, which leaves `left` mappings of its node.
    fn note_detached(&mut self, ksm: &Ksm, mapping: &Mapping, left: usize) {
        match left {
            0 => ksm.stats.pages_shared.sub(1),
            _ => ksm.stats.pages_sharing.sub(1),
        }
        self.part(mapping);
    }

    /// Notes that `mapping` is gone.
    fn part(&mut self, mapping: &Mapping) {
        let owner = mapping.area.owner();
        self.items[mapping.item].note_parted(owner);
        self.count_merging(owner, -1);
    }

    /// Notes how many mappings `node` has.
    fn note_mappings(&mut self, ksm: &Ksm, node: NodeId, count: usize) {
        let most = ksm.tunables.max_page_sharing.get();
        let anchor = self.nodes[node].anchor.as_ref();
        if anchor.is_some_and(|anchor| anchor.notes.set_mappings(count, most)) {
            self.reorder_chain(ksm, node);
        }
    }

    fn count_merging(&self, mm: SpaceId, change: isize) {
        if let Some(slot) = self.mms[mm].slot() {
            count(slot.mm(), Counter::MergingPages, change);
        }
    }

    /// Takes the mapping of `item` from `node`, which is removed if nothing maps its page any more.
    fn detach(&mut self, ksm: &Ksm, node: NodeId, item: ItemId) {
        let Some(anchor) = &self.nodes[node].anchor else {
            return;
        };
        let items = &self.items;
        let taken = anchor.with_folio(|mut folio| {
            let mappings = folio.mappings_mut();
            let index = items[item]
                .possible_indices(mappings.len())
                .find(|at| mappings.get(*at).is_some_and(|its| its.item == item))?;
            let (gone, moved) = mappings.take(index)?;
            let moved = moved.map(|moved| (moved.item, index));
            let left = folio.mappings().len();
            // A page that waits to be freed, or to be written to swap, would leave a node that only
            // a page of the same checksum would lead to.
            let parted = left == 0 && folio.release().is_ok();
            Some((gone, moved, left, parted))
        });
        match taken {
            Ok(Some((gone, moved, left, parted))) => {
                if let Some((moved, index)) = moved {
                    self.items[moved].set_index(index);
                }
                self.note_detached(ksm, &gone, left);
                match parted {
                    true => self.remove_stale(ksm, node),
                    false => self.note_mappings(ksm, node, left),
                }
            }
            Ok(None) => pr_err!("a mapping of a stable node is missing\n"),
            Err(_) => self.remove_stale(ksm, node),
        }
    }

    /// Removes a node whose page is gone, and with it its mappings.
    pub(crate) fn remove_stale(&mut self, ksm: &Ksm, node: NodeId) {
        if let Some(partition) = self.strip(ksm, node) {
            self.remove_from_tree(ksm, node, partition);
            self.forget_node(node);
        }
    }

    /// Takes its mappings from a node whose page is gone; returns the partition that it belongs to.
    pub(crate) fn strip(&mut self, ksm: &Ksm, node: NodeId) -> Option<PartitionId> {
        let anchor = self.nodes[node].anchor.as_mut()?;
        let mappings = anchor.take_mappings()?;
        let (pfn, partition) = (anchor.pfn(), anchor.notes.partition());
        for (number, mapping) in mappings.iter().enumerate() {
            if number % MAPPINGS_AT_ONCE == MAPPINGS_AT_ONCE - 1 {
                kthread::cond_resched();
            }
            trace::remove_rmap_item(pfn, mapping.item, mapping.area.mm());
            self.part(mapping);
        }
        if let Some(sharing) = mappings.len().checked_sub(1) {
            ksm.stats.pages_shared.sub(1);
            ksm.stats.pages_sharing.sub(sharing);
        }
        trace::remove_ksm_page(pfn);
        Some(partition)
    }

    /// Takes `node` out of the stable tree of its `partition`.
    pub(crate) fn remove_from_tree(&mut self, ksm: &Ksm, node: NodeId, partition: PartitionId) {
        let stable = &mut self.partitions.get(partition).stable;
        stable.remove(&mut self.nodes, node);
        self.note_chains(ksm);
    }

    /// Makes the counts of chains known.
    pub(crate) fn note_chains(&self, ksm: &Ksm) {
        let (chains, dups) = self.partitions.count_chains();
        ksm.stats.stable_node_chains.set(chains);
        ksm.stats.stable_node_dups.set(dups);
    }

    /// Frees `node`, which is in no tree and has no mappings.
    pub(crate) fn forget_node(&mut self, node: NodeId) {
        drop(self.nodes.remove(node));
        self.release_module_if_unused();
    }

    /// Lets the module be unloaded if there is no node.
    pub(crate) fn release_module_if_unused(&mut self) {
        if self.nodes.len() == 0 {
            self.module_hold = None;
        }
    }

    /// Removes `node` unless its page is still mapped.
    pub(crate) fn remove_if_unmapped(&mut self, ksm: &Ksm, node: NodeId) {
        if self.page_if_mapped(node).is_none() {
            self.remove_stale(ksm, node);
        }
    }

    /// The page of `node`, from which it is parted if nothing maps it.
    pub(crate) fn page_if_mapped(&self, node: NodeId) -> Option<PinnedPage> {
        let anchor = self.nodes[node].anchor.as_ref()?;
        match anchor.with_folio(|folio| folio.release().is_ok()) {
            Ok(false) => anchor.page().ok(),
            Ok(true) | Err(_) => None,
        }
    }
}
