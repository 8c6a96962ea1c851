// SPDX-License-Identifier: GPL-2.0

//! Mappings of stable nodes come and go, and with them the places of items.

#![deny(unsafe_code)]

use super::Records;
use crate::{
    kernel_api::kthread,
    mm::{
        address_space::{
            count,
            Counter, //
        },
        folio::LockedFolio,
        ksm_page::{
            ids::{
                ItemId,
                NodeId,
                PartitionId,
                SpaceId, //
            },
            mappings::Mapping,
            trace, //
        },
        vma::MergeableVma, //
    }, //
};
use kernel::prelude::*;

/// Mappings of a node that are taken from it between two chances for others to run.
const MAPPINGS_AT_ONCE: usize = 256;

impl Records {
    /// The mapping that `item`, which has none, will have in `vma`.
    pub(crate) fn mapping(&mut self, vma: &MergeableVma<'_>, item: ItemId) -> Result<Mapping> {
        let owner = self.items[item].space().ok_or(EINVAL)?;
        let address = self.items[item].address();
        let (vma, page) = self.recent_vmas.find(vma, address, owner)?;
        Ok(Mapping { vma, page, item })
    }

    /// Makes `mapping` one of the mappings of `node`, whose page has the lock `locked`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the page is not that of the node, any more; `ENOMEM`.
    pub(crate) fn attach(
        &mut self,
        node: NodeId,
        locked: &mut LockedFolio<'_>,
        mapping: Mapping,
    ) -> Result {
        let item = mapping.item;
        let anchor = self.nodes[node].anchor.as_ref().ok_or(ENOENT)?;
        let Some(mut folio) = anchor.target(locked) else {
            self.remove_stale(node);
            return Err(ENOENT);
        };
        let mappings = folio.mappings_mut();
        let index = mappings.len();
        mappings.push(mapping)?;
        self.note_attached(node, item, index);
        Ok(())
    }

    /// Notes that the mapping of `item`, which had none, is number `index` of `node`.
    pub(super) fn note_attached(&mut self, node: NodeId, item: ItemId, index: usize) {
        let space = self.items[item].space();
        self.items[item].note_merged(node, index);
        match index {
            0 => self.counters.pages_shared.add(1),
            _ => self.counters.pages_sharing.add(1),
        }
        if let Some(space) = space {
            self.count_merging(space, 1);
        }
        self.note_mappings(node, index + 1);
    }

    /// Takes the mapping of `item` from `node`, which is removed if nothing maps its page any more.
    pub(super) fn detach(&mut self, node: NodeId, item: ItemId) {
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
                self.note_detached(&gone, left);
                match parted {
                    true => self.remove_stale(node),
                    false => self.note_mappings(node, left),
                }
            }
            Ok(None) => pr_err!("a mapping of a stable node is missing\n"),
            Err(_) => self.remove_stale(node),
        }
    }

    /// Takes its mappings from a node whose page is gone; returns the partition that it belongs to.
    pub(super) fn detach_all(&mut self, node: NodeId) -> Option<PartitionId> {
        let anchor = self.nodes[node].anchor.as_mut()?;
        let mappings = anchor.take_mappings()?;
        let (pfn, partition) = (anchor.pfn(), anchor.state.partition());
        for (number, mapping) in mappings.iter().enumerate() {
            if number % MAPPINGS_AT_ONCE == MAPPINGS_AT_ONCE - 1 {
                kthread::cond_resched();
            }
            trace::remove_rmap_item(pfn, mapping.item, mapping.vma.mm());
            self.part(mapping);
        }
        if let Some(sharing) = mappings.len().checked_sub(1) {
            self.counters.pages_shared.sub(1);
            self.counters.pages_sharing.sub(sharing);
        }
        trace::remove_ksm_page(pfn);
        Some(partition)
    }

    /// Notes that `mapping` is gone, which leaves `left` mappings of its node.
    fn note_detached(&mut self, mapping: &Mapping, left: usize) {
        match left {
            0 => self.counters.pages_shared.sub(1),
            _ => self.counters.pages_sharing.sub(1),
        }
        self.part(mapping);
    }

    /// Notes that `mapping` is gone.
    fn part(&mut self, mapping: &Mapping) {
        let owner = mapping.vma.owner();
        self.items[mapping.item].note_parted(owner);
        self.count_merging(owner, -1);
    }

    /// Notes how many mappings `node` has.
    fn note_mappings(&mut self, node: NodeId, count: usize) {
        let most = self.max_page_sharing;
        let anchor = self.nodes[node].anchor.as_ref();
        if anchor.is_some_and(|anchor| anchor.state.set_mappings(count, most)) {
            self.reorder_chain(node);
        }
    }

    fn count_merging(&self, space: SpaceId, change: isize) {
        if let Some(slot) = self.spaces[space].slot() {
            count(slot.mm(), Counter::MergingPages, change);
        }
    }
}
