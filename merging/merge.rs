// SPDX-License-Identifier: GPL-2.0

//! Merging pages that are equal.
//!
//! A mapping is in a node's list before its page table entry is changed, and leaves it after: a
//! walk from the KSM page always finds all the entries that merging has made.

#![deny(unsafe_code)]

use crate::{
    kernel_api::{
        gfp,
        module_hold::ModuleHold, //
    },
    ksmd::Ksm,
    merging::{
        lookup::{
            Equal,
            Held,
            Look,
            Meeting, //
        },
        unmerge::unmerge_range, //
    },
    mm::{
        address_space::ReadLockedMm,
        folio::{
            zero_pfn,
            PinnedPage, //
        },
        ksm_page::{
            ids::{
                ItemId,
                NodeId,
                PartitionId, //
            },
            ksm_folio::{
                self,
                OwnedAnchor, //
            },
            mappings::{
                Mapping,
                Mappings, //
            },
            notes::Notes,
            share::{
                self,
                KsmPage,
                Refusal,
                Target, //
            },
            trace,
            walk::{
                page_at,
                Met, //
            }, //
        },
        vma::MergeableVma, //
    },
    records::stable_node::StableNode,
    rmap_item::Place,
    scan::Scanner,
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*, //
};

/// What has come of a search for a KSM page to merge with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// No KSM page is equal and has room for another mapping, or there is no memory to list it.
    NotMade,
    /// They are merged, or have to wait for the next scan.
    Settled,
}

impl Scanner {
    /// Replaces a page of zeros by the zero page, if that is wanted; returns whether the page
    /// needs no further attention.
    pub(crate) fn merge_with_zero_page(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: ItemId,
        page: &PinnedPage,
    ) -> bool {
        if !ksm.tunables.use_zero_pages.is_set()
            || !self.keys.is_that_of_zeros(self.checksum_of(item))
        {
            return false;
        }
        let look = self.how_to_look(page);
        let is_zero = match look {
            Look::Glance => page.looks_zero(),
            Look::Thorough => page.is_zero(),
        };
        if !is_zero {
            return false;
        }
        let address = self.items[item].address();
        let Some(locked) = ReadLockedMm::try_new(mm, &mut self.patience) else {
            return true;
        };
        let Some(vma) = locked.mergeable_at(address) else {
            return true;
        };
        let result = self.try_replace(&vma, address, page, Target::Zero);
        trace::merge_one_page(zero_pfn(), item, mm, &result);
        if look == Look::Glance && result == Err(EAGAIN) {
            self.note_misled();
        }
        result.is_ok()
    }

    /// Merges `page` with a KSM page that is equal and may have another mapping; has the CPU fetch
    /// `next` meanwhile.
    ///
    /// Nothing is locked, split, emptied or flushed for a page that does not look equal to any.
    pub(crate) fn merge_with_stable(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: ItemId,
        (page, next): (&PinnedPage, &PinnedPage),
    ) -> Attempt {
        let mut look = self.how_to_look(page);
        loop {
            match self.find_equal(ksm, item, (page, next), look) {
                Equal::WithRoom(node, equal) => {
                    match self.merge_into(ksm, mm, item, (page, next), (node, &equal)) {
                        Err(ENOMEM) => return Attempt::NotMade,
                        Err(EAGAIN) if look == Look::Glance => self.note_misled(),
                        _ => return Attempt::Settled,
                    }
                }
                // Where they only look equal there may be others that are.
                Equal::Full if look == Look::Glance => {}
                Equal::Full | Equal::Missing => return Attempt::NotMade,
            }
            look = Look::Thorough;
        }
    }

    /// Merges `page` with a page of the same content from the unstable tree, or leaves it there.
    pub(crate) fn meet_in_unstable(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: ItemId,
        page: &PinnedPage,
    ) {
        let meeting = match self.find_unstable(ksm, item, page) {
            Meeting::Equal(other, held) => {
                match self.merge_pair(ksm, (mm, item, page), (other, held)) {
                    // The other page is in use, perhaps for long. It has left the tree, so that
                    // further equals do not try it too, but meet this one.
                    Err(_) if self.items[item].place() == Place::Nowhere => {
                        self.find_unstable(ksm, item, page)
                    }
                    _ => return,
                }
            }
            meeting => meeting,
        };
        if matches!(meeting, Meeting::Waiting) {
            self.items[item].note_waiting();
            ksm.stats.pages_unshared.add(1);
        }
    }

    /// Makes `item`, whose page is a KSM page that a fork has inherited, a mapping of that page.
    ///
    /// The page is mapped already, so this is no matter of `max_page_sharing`.
    pub(crate) fn adopt_fork(&mut self, ksm: &Ksm, mm: &MmWithUser, item: ItemId) {
        let address = self.items[item].address();
        let Some(locked) = ReadLockedMm::try_new(mm, &mut self.patience) else {
            return;
        };
        let Some(vma) = locked.mergeable_at(address) else {
            return;
        };
        // From this look on no node is removed but by the following lines.
        if let Some(Met::Ksm(node)) = page_at(&vma, address, &self.nodes, &mut self.probe) {
            let page = self.nodes[node].anchor.as_ref().map(|anchor| anchor.page());
            let Some(Ok(page)) = page else {
                return;
            };
            // Without memory for it the mapping goes on unlisted, until the next scan.
            let adopted = self.mapping(&vma, item).and_then(|mapping| {
                let mut shared = page.folio().lock();
                self.attach(ksm, node, &mut shared, mapping)
            });
            if adopted.is_ok() {
                self.drop_unstable_node(item);
            }
        }
    }

    /// Lets `item` map `equal`, the page of `node`, instead of `page`, which was equal a moment ago;
    /// has the CPU fetch `next` meanwhile.
    fn merge_into(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: ItemId,
        (page, next): (&PinnedPage, &PinnedPage),
        (node, equal): (NodeId, &KsmPage),
    ) -> Result {
        race_delay::pause(RaceWindow::Found);
        let result = self.join(ksm, mm, item, (page, next), (node, equal));
        let ksm_page = equal.page();
        trace::merge_with_ksm_page(Some(ksm_page), ksm_page.pfn(), item, mm, &result);
        result
    }

    fn join(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: ItemId,
        (page, next): (&PinnedPage, &PinnedPage),
        (node, target): (NodeId, &KsmPage),
    ) -> Result {
        let address = self.items[item].address();
        let locked = ReadLockedMm::try_new(mm, &mut self.patience).ok_or(EFAULT)?;
        let vma = locked.mergeable_at(address).ok_or(EFAULT)?;
        let mapping = self.mapping(&vma, item)?;
        // Held for as long as the mapping is listed but may not be there yet, or be clean.
        let mut shared = target.page().folio().lock();
        if target.page().is_poisoned() {
            // Whoever has mapped it does not any more, so its node will soon be collected.
            return Err(EFAULT);
        }
        let age = self.items[item].age();
        self.attach(ksm, node, &mut shared, mapping)?;
        race_delay::pause(RaceWindow::Listed);
        let replaced = self.try_replace(&vma, address, page, Target::Ksm { page: target, next });
        match replaced {
            Ok(()) => {
                ksm_folio::mark_dirty(&shared);
                self.drop_unstable_node(item);
                // A mapping that is locked in memory may wait in a batch of this CPU to be counted.
                self.drain_wanted = true;
            }
            Err(_) => {
                drop(shared);
                self.leave_tree(ksm, item);
                self.items[item].set_age(age);
            }
        }
        replaced
    }

    /// Makes a KSM page of `page`, and lets the other item map it too.
    fn merge_pair(
        &mut self,
        ksm: &Ksm,
        (mm, item, page): (&MmWithUser, ItemId, &PinnedPage),
        (other, held): (ItemId, Held),
    ) -> Result {
        if core::ptr::eq(page.folio(), held.page.folio()) {
            // Equal parts of one large folio, which can be split by one holder only: so split it, and
            // let the next scan merge what comes of it.
            drop(held);
            drop(page.try_lock_single());
            return Ok(());
        }
        let age = self.items[item].age();
        let promoted = self.promote(ksm, mm, item, page);
        let result = promoted.as_ref().map(|_| ()).map_err(|error| *error);
        trace::merge_with_ksm_page(None, page.pfn(), item, mm, &result);
        let node = promoted?;
        race_delay::pause(RaceWindow::Promoted);
        self.insert_node(ksm, node, page);
        self.leave_tree(ksm, other);
        let Held { mm: other_mm, page } = held;
        let result = match self.nodes[node].anchor.as_deref().map(KsmPage::of) {
            Some(Ok(equal)) => {
                self.merge_into(ksm, &other_mm, other, (&page, &page), (node, &equal))
            }
            _ => Err(ENOENT),
        };
        self.give_up(page);
        match result {
            Ok(()) => self.drop_unstable_node(item),
            Err(_) => {
                race_delay::pause(RaceWindow::Refused);
                match self.demote(ksm, mm, item) {
                    true => self.items[item].set_age(age),
                    false => self.drop_unstable_node(item),
                }
            }
        }
        result
    }

    /// Makes `page` the KSM page of a new node, which is not in the tree yet.
    fn promote(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: ItemId,
        page: &PinnedPage,
    ) -> Result<NodeId> {
        let address = self.items[item].address();
        let checksum = self.checksum_of(item);
        let locked = ReadLockedMm::try_new(mm, &mut self.patience).ok_or(EFAULT)?;
        let vma = locked.mergeable_at(address).ok_or(EFAULT)?;
        let single = page.try_lock_single();
        let Some(Ok(protected)) = single
            .as_ref()
            .map(|single| share::protect(&vma, address, single))
        else {
            self.drain_wanted = true;
            return Err(EFAULT);
        };
        let mapping = self.mapping(&protected.vma(), item)?;
        let node = self.new_node(ksm, checksum, self.partition_of(page), mapping)?;
        if let Some(anchor) = &self.nodes[node].anchor {
            protected.bind(anchor);
        }
        self.note_attached(ksm, node, item, 0);
        Ok(node)
    }

    /// The mapping that `item`, which has none, will have in `vma`.
    fn mapping(&mut self, vma: &MergeableVma<'_>, item: ItemId) -> Result<Mapping> {
        let owner = self.items[item].mm().ok_or(EINVAL)?;
        let (area, page) = self.areas.find(vma, self.items[item].address(), owner)?;
        Ok(Mapping { area, page, item })
    }

    /// A node with one mapping that has no page yet.
    ///
    /// As long as there are nodes the module cannot be unloaded.
    fn new_node(
        &mut self,
        ksm: &Ksm,
        checksum: u32,
        partition: PartitionId,
        mapping: Mapping,
    ) -> Result<NodeId> {
        if self.module_hold.is_none() {
            self.module_hold = Some(ModuleHold::new(ksm.module).ok_or(ENODEV)?);
        }
        let node = self
            .nodes
            .insert(StableNode::new(checksum), gfp::for_merge());
        let node = node.inspect_err(|_| self.release_module_if_unused())?;
        let anchor = anchor_with(node, partition, mapping).inspect_err(|_| {
            self.forget_node(node);
        })?;
        self.nodes[node].anchor = Some(anchor);
        Ok(node)
    }

    /// Locks and splits the folio of `page`, and replaces the page.
    fn try_replace(
        &mut self,
        vma: &MergeableVma<'_>,
        address: usize,
        page: &PinnedPage,
        target: Target<'_>,
    ) -> Result {
        let refusal = match page.try_lock_single() {
            Some(single) => share::replace(vma, address, page, &single, target),
            None => Err(Refusal::InUse),
        };
        refusal.map_err(|refusal| {
            self.drain_wanted |= refusal == Refusal::InUse;
            match refusal {
                Refusal::Different => EAGAIN,
                Refusal::Changed | Refusal::InUse => EFAULT,
            }
        })
    }

    /// Undoes [`Scanner::promote`] for a page that found nobody to share it; returns whether that
    /// could be done.
    fn demote(&mut self, ksm: &Ksm, mm: &MmWithUser, item: ItemId) -> bool {
        let address = self.items[item].address();
        if let Some(locked) = ReadLockedMm::try_new(mm, &mut self.patience) {
            if let Some(vma) = locked.mergeable_at(address) {
                // Without memory for a copy it stays a KSM page with one mapping, which is harmless.
                let _ = unmerge_range(vma.vma(), address..address + PAGE_SIZE, gfp::for_merge());
            }
        }
        if let Place::Stable(node) = self.items[item].place() {
            self.remove_if_unmapped(ksm, node);
        }
        self.items[item].place() == Place::Nowhere
    }
}

/// An anchor with one mapping.
fn anchor_with(node: NodeId, partition: PartitionId, first: Mapping) -> Result<OwnedAnchor> {
    let mut mappings = Mappings::default();
    mappings.push(first)?;
    OwnedAnchor::new(node, Notes::new(partition), mappings)
}
