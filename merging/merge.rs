// SPDX-License-Identifier: GPL-2.0

//! Merging pages that are equal.
//!
//! A mapping is in a node's list before its page table entry is changed, and leaves it after: a
//! walk from the KSM page always finds all the entries that merging has made.

#![deny(unsafe_code)]

use super::{
    lookup::{
        PinnedEqual,
        UnstableResult, //
    },
    unmerge::unmerge_range,
    Merging, //
};
use crate::{
    kernel_api::gfp,
    mm::{
        address_space::{
            domains_have_changed,
            ReadLockedMm, //
        },
        folio::{
            zero_pfn,
            LockedFolio, //
        },
        ksm_page::{
            compare::Compare,
            fresh_page::FreshPage,
            huge_zeros,
            ids::{
                ItemId,
                NodeId, //
            },
            ksm_folio,
            share::{
                self,
                KsmPage,
                Refusal,
                Target, //
            },
            trace,
            walk::{
                page_at,
                FoundPage, //
            }, //
        },
        page::{
            Page,
            PinnedPage, //
        },
        vma::MergeableVma, //
    },
    records::stable_nodes::Equal,
    rmap_item::Place,
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

/// The result of a search for a KSM page to merge with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// No KSM page is equal and has room for another mapping, or there is no memory to list it.
    NotMade,
    /// They are merged, or have to wait for the next scan.
    Settled,
}

impl Merging<'_> {
    /// Replaces a page of zeros by the zero page, if that is wanted; returns whether the page
    /// needs no further attention.
    pub(crate) fn merge_with_zero_page(&mut self, item: ItemId, page: &PinnedPage) -> bool {
        if !self.shared.tunables.use_zero_pages.is_set()
            || !self
                .state
                .keys
                .is_that_of_zeros(self.records.checksum(item))
        {
            return false;
        }
        let how = self.state.how_to_compare(page);
        let is_zero = match how {
            Compare::Sample => page.sample_is_zero(),
            Compare::Whole => page.is_zero(),
        };
        if !is_zero {
            return false;
        }
        if !self.may_merge(item, page) {
            return true;
        }
        let address = self.records.address(item);
        let Some(result) = self.replace_by_zeros(Some(item), address, page) else {
            return true;
        };
        if how == Compare::Sample && result == Err(EAGAIN) {
            self.state.note_false_match();
        }
        result.is_ok()
    }

    /// Replaces `page` at `address`, which need not have an item, by the zero page; `None` if it
    /// cannot be reached now.
    pub(crate) fn replace_by_zeros(
        &mut self,
        item: Option<ItemId>,
        address: usize,
        page: &PinnedPage,
    ) -> Option<Result> {
        let locked = ReadLockedMm::try_new(self.mm, &mut self.state.patience)?;
        let vma = locked.advised_at(address)?;
        let result = match huge_zeros::replace(&vma, address, page) {
            true => Ok(()),
            false => self.try_replace(&vma, address, page, Target::Zero),
        };
        trace::merge_one_page(zero_pfn(), item, self.mm, &result);
        Some(result)
    }

    /// Merges `page` with a KSM page that is equal and may have another mapping; has the CPU fetch
    /// `next` meanwhile.
    ///
    /// Nothing is locked, split, emptied or flushed for a page that does not look equal to any.
    pub(crate) fn merge_with_stable(
        &mut self,
        item: ItemId,
        (page, next): (&PinnedPage, &Page),
    ) -> Attempt {
        let mut how = self.state.how_to_compare(page);
        loop {
            match self.records.find_equal(item, (page, next), how) {
                Equal::WithRoom(..) if !self.may_merge(item, page) => return Attempt::Settled,
                Equal::WithRoom(node, equal) => {
                    match self.merge_into(self.mm, item, (page, next), (node, &equal)) {
                        Err(ENOMEM) => return Attempt::NotMade,
                        Err(EAGAIN) if how == Compare::Sample => self.state.note_false_match(),
                        _ => return Attempt::Settled,
                    }
                }
                // Where they only look equal there may be others that are.
                Equal::Full if how == Compare::Sample => {}
                Equal::Full | Equal::Missing => return Attempt::NotMade,
            }
            how = Compare::Whole;
        }
    }

    /// Merges `page` with a page of the same content from the unstable tree, or leaves it there.
    pub(crate) fn meet_in_unstable(&mut self, item: ItemId, page: &PinnedPage) {
        let UnstableResult::Equal(other, pinned) = self.find_waiting(item, page) else {
            return;
        };
        if !self.may_merge_pair(item, page, (other, &pinned)) {
            return;
        }
        if core::ptr::eq(page.folio(), pinned.page.folio()) {
            return self.merge_parts(item, page, pinned);
        }
        let result = self.merge_pair(item, page, (other, pinned));
        // The other page is in use, perhaps for long. It has left the tree, so that further equals do
        // not try it too, but meet this one.
        if result.is_err() && self.records.place(item) == Place::Nowhere {
            self.find_waiting(item, page);
        }
    }

    /// Makes `item`, whose page is a KSM page that a fork has inherited, a mapping of that page.
    ///
    /// The page is mapped already, so this is no matter of `max_page_sharing`.
    pub(crate) fn adopt_fork(&mut self, item: ItemId) {
        let address = self.records.address(item);
        let Some(locked) = ReadLockedMm::try_new(self.mm, &mut self.state.patience) else {
            return;
        };
        let Some(vma) = locked.advised_at(address) else {
            return;
        };
        // From this look on no node is removed but by the following lines.
        let met = page_at(&vma, address, self.records.nodes(), &mut self.state.probe);
        let Some(FoundPage::Ksm(node)) = met else {
            return;
        };
        let Some(page) = self.records.ksm_page(node) else {
            return;
        };
        if self.records.node_domain(node) != self.records.domain_of(item) {
            // The kernel had no memory to register the fork, so it was missed when other domains came to
            // count.
            let _ = unmerge_range(vma.vma(), address..address + PAGE_SIZE, gfp::for_merge());
            return;
        }
        // Without memory for it the mapping goes on unlisted, until the next scan.
        let adopted = self.records.mapping(&vma, item).and_then(|mapping| {
            let mut shared = page.page().folio().lock();
            self.records.attach(node, &mut shared, mapping)
        });
        if adopted.is_ok() {
            self.records.forget_checksum(item);
        }
    }

    /// Lets `item` map `equal`, the page of `node`, instead of `page`, which was equal a moment ago;
    /// has the CPU fetch `next` meanwhile.
    fn merge_into(
        &mut self,
        mm: &MmWithUser,
        item: ItemId,
        (page, next): (&PinnedPage, &Page),
        (node, equal): (NodeId, &KsmPage),
    ) -> Result {
        race_delay::pause(RaceWindow::Found);
        let result = self.join(mm, item, (page, next), (node, equal));
        let ksm_page = equal.page();
        trace::merge_with_ksm_page(Some(ksm_page), ksm_page.pfn(), item, mm, &result);
        result
    }

    fn join(
        &mut self,
        mm: &MmWithUser,
        item: ItemId,
        (page, next): (&PinnedPage, &Page),
        (node, target): (NodeId, &KsmPage),
    ) -> Result {
        let address = self.records.address(item);
        let locked = ReadLockedMm::try_new(mm, &mut self.state.patience).ok_or(EFAULT)?;
        let domain = (self.records.domain_of(item), self.records.domain_rule());
        let vma = locked.mergeable_in(domain, address).ok_or(EFAULT)?;
        let mapping = self.records.mapping(&vma, item)?;
        // Held for as long as the mapping is listed but may not be there yet, or be clean.
        let mut shared = target.page().folio().lock();
        if target.page().is_poisoned() {
            // No process maps it any more, so its node will soon be collected.
            return Err(EFAULT);
        }
        let history = self.records.history(item);
        self.records.attach(node, &mut shared, mapping)?;
        race_delay::pause(RaceWindow::Listed);
        let replaced = self.try_replace(&vma, address, page, Target::Ksm { page: target, next });
        match replaced {
            Ok(()) => {
                ksm_folio::mark_dirty(&shared);
                self.records.forget_checksum(item);
                // A mapping that is locked in memory may wait in a batch of this CPU to be counted.
                self.state.is_drain_wanted = true;
            }
            Err(_) => {
                drop(shared);
                self.records.leave_tree(item);
                self.records.restore_history(item, history);
            }
        }
        replaced
    }

    /// Merges equal parts of one large folio, which can be split by one holder only: so splits it, and looks
    /// for the other part anew.
    fn merge_parts(&mut self, item: ItemId, page: &PinnedPage, other: PinnedEqual) {
        drop(other);
        if page.try_lock_single().is_some() {
            self.meet_in_unstable(item, page);
        }
    }

    /// Makes a KSM page of `page`, and lets the other item map it too.
    fn merge_pair(
        &mut self,
        item: ItemId,
        page: &PinnedPage,
        (other, pinned): (ItemId, PinnedEqual),
    ) -> Result {
        let history = self.records.history(item);
        let promoted = self.promote(item, page);
        let result = promoted.as_ref().map(|_| ()).map_err(|error| *error);
        trace::merge_with_ksm_page(None, page.pfn(), item, self.mm, &result);
        let node = promoted?;
        self.records.leave_tree(other);
        let result = self.join_promoted(node, (other, pinned));
        match result {
            Ok(()) => self.records.forget_checksum(item),
            Err(_) => {
                race_delay::pause(RaceWindow::Refused);
                match self.demote(item) {
                    true => self.records.restore_history(item, history),
                    false => self.records.forget_checksum(item),
                }
            }
        }
        result
    }

    /// Lets the other item of a pair map the page of `node`, which was promoted a moment ago.
    fn join_promoted(&mut self, node: NodeId, (other, pinned): (ItemId, PinnedEqual)) -> Result {
        let PinnedEqual { mm, page } = pinned;
        let result = match self.records.ksm_page(node) {
            Some(equal) => self.merge_into(&mm, other, (&page, &page), (node, &equal)),
            None => Err(ENOENT),
        };
        self.state.give_up(page);
        result
    }

    /// Makes `page`, or a copy of it that takes its place, the KSM page of a new node.
    fn promote(&mut self, item: ItemId, page: &PinnedPage) -> Result<NodeId> {
        let address = self.records.address(item);
        let locked = ReadLockedMm::try_new(self.mm, &mut self.state.patience).ok_or(EFAULT)?;
        let domain = (self.records.domain_of(item), self.records.domain_rule());
        let vma = locked.mergeable_in(domain, address).ok_or(EFAULT)?;
        let Some(single) = self.try_lock_single(&vma, address, page) else {
            self.state.is_drain_wanted = true;
            return Err(EFAULT);
        };
        if self.wants_fresh_frame(&single) {
            let fresh = FreshPage::copy_of(&single, &vma, address).ok_or(ENOMEM)?;
            drop(single);
            return self.promote_copy(item, page, (&vma, fresh));
        }
        let Ok(protected) = share::protect(&vma, address, &single) else {
            self.state.is_drain_wanted = true;
            return Err(EFAULT);
        };
        let mapping = self.records.mapping(&protected.vma(), item)?;
        let partition = self.records.partition_of(page);
        let (node, ()) = self
            .records
            .make_node(item, mapping, partition, |anchor| protected.bind(anchor))?;
        drop(single);
        race_delay::pause(RaceWindow::Promoted);
        self.records.insert_node(node, page);
        Ok(node)
    }

    /// Whether a copy of the page has to become the KSM page: because an administrator wants that, or
    /// because forks have the page, too, and may be in other domains.
    fn wants_fresh_frame(&self, single: &LockedFolio<'_>) -> bool {
        self.shared.tunables.fresh_frames.is_set()
            || single.folio().may_have_other_owners() && domains_have_changed()
    }

    /// Makes `fresh`, a copy of `page`, the KSM page of a new node, and maps it in place of `page`.
    fn promote_copy(
        &mut self,
        item: ItemId,
        page: &PinnedPage,
        (vma, fresh): (&MergeableVma<'_>, FreshPage),
    ) -> Result<NodeId> {
        let mapping = self.records.mapping(vma, item)?;
        let partition = self.records.partition_of(fresh.page());
        let history = self.records.history(item);
        let (node, target) = self
            .records
            .make_node(item, mapping, partition, |anchor| fresh.bind(anchor))?;
        race_delay::pause(RaceWindow::Promoted);
        self.records.insert_node(node, target.page());
        // Held for as long as the mapping is listed but not there yet.
        let shared = target.page().folio().lock();
        let target = Target::Ksm {
            page: &target,
            next: page,
        };
        let replaced = self.try_replace(vma, self.records.address(item), page, target);
        drop(shared);
        match replaced {
            Ok(()) => Ok(node),
            Err(error) => {
                self.records.leave_tree(item);
                self.records.restore_history(item, history);
                Err(error)
            }
        }
    }

    /// Locks the folio of `page`, which is split if it is a large one, unless `address` does not map the page
    /// any more: other processes may have the rest of it.
    fn try_lock_single<'b>(
        &mut self,
        vma: &MergeableVma<'_>,
        address: usize,
        page: &'b PinnedPage,
    ) -> Option<LockedFolio<'b>> {
        if page.folio().is_large() {
            let met = page_at(vma, address, self.records.nodes(), &mut self.state.probe);
            match met? {
                FoundPage::Anonymous(found) if found.as_raw() == page.as_raw() => {}
                _ => return None,
            }
        }
        page.try_lock_single()
    }

    /// Locks and splits the folio of `page`, and replaces the page.
    fn try_replace(
        &mut self,
        vma: &MergeableVma<'_>,
        address: usize,
        page: &PinnedPage,
        target: Target<'_>,
    ) -> Result {
        let refusal = match self.try_lock_single(vma, address, page) {
            Some(single) => share::replace(vma, address, page, &single, target),
            None => Err(Refusal::InUse),
        };
        refusal.map_err(|refusal| {
            self.state.is_drain_wanted |= refusal == Refusal::InUse;
            match refusal {
                Refusal::Different => EAGAIN,
                Refusal::Changed | Refusal::InUse => EFAULT,
            }
        })
    }

    /// Undoes [`Merging::promote`] for a page that found nobody to share it; returns whether that
    /// could be done.
    fn demote(&mut self, item: ItemId) -> bool {
        let address = self.records.address(item);
        if let Some(locked) = ReadLockedMm::try_new(self.mm, &mut self.state.patience) {
            if let Some(vma) = locked.advised_at(address) {
                // Without memory for a copy it stays a KSM page with one mapping, which is harmless.
                let _ = unmerge_range(vma.vma(), address..address + PAGE_SIZE, gfp::for_merge());
            }
        }
        if let Place::Stable(node) = self.records.place(item) {
            self.records.remove_if_unmapped(node);
        }
        self.records.place(item) == Place::Nowhere
    }
}
