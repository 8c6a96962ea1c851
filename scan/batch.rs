// SPDX-License-Identifier: GPL-2.0

//! What becomes of a batch of candidates: items, checksums, look-ups, merges.
//!
//! Each step is done for the whole batch before the next begins, and has the CPU fetch what the
//! next will look at.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    merging::{
        merge::Attempt,
        MergeState,
        Merging, //
    },
    mm::{
        folio::PinnedPage,
        ksm_page::{
            ids::{
                ItemId,
                NodeId, //
            },
            walk::{
                Candidate,
                FoundPage, //
            }, //
        }, //
    },
    page::{
        checksum::UNKNOWN,
        content::LINES, //
    },
    policy::shared::Shared,
    records::{
        registry::MmSlot,
        tracking::ItemFor,
        Records, //
    },
    rmap_item::{
        ListCursor,
        Place, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::Arc, //
};

/// How many pages before its turn a page is fetched.
const PAGES_AHEAD: usize = 2;

/// How many lines of the first pages of a batch are fetched for each item that is found. Later pages are
/// fetched while an earlier one is hashed.
const LINES_PER_ITEM: usize = 2;

/// How many pages before its turn the beginning of a page is fetched, and with it the translation
/// of its address.
const BEGINNINGS_AHEAD: usize = 6;

/// A candidate that is not merged.
pub(crate) struct UnmergedPage {
    item: ItemId,
    page: PinnedPage,
    look_up: LookUp,
}

/// Whether and how a page is looked up in this scan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookUp {
    /// It is not: its checksum has changed since the last scan, or it waits where others find it.
    NotNow,
    /// By its checksum, which is that of the last scan.
    ByChecksum,
    /// By the checksum of the last scan, which is that of a KSM page, or of zeros. The comparison with
    /// that page will show whether the content is still the same: nothing need be read twice.
    ByLastChecksum,
}

/// See the [module's description](self).
pub(crate) struct BatchWork<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) records: &'a mut Records,
    pub(crate) merge: &'a mut MergeState,
    /// The address space of the candidates.
    pub(crate) mm: &'a MmWithUser,
}

impl BatchWork<'_> {
    /// Looks at all candidates of `batch`, which is empty then, and so is `all`, which has room for
    /// as many. `slot` is that of the address space, `cursor` the place in its list of items.
    pub(crate) fn work_off(
        &mut self,
        slot: &Arc<MmSlot>,
        cursor: &mut Option<ListCursor>,
        batch: &mut KVec<Candidate>,
        all: &mut KVec<UnmergedPage>,
    ) {
        self.find_items(slot, cursor, batch, all);
        kthread::cond_resched();
        self.choose_look_ups(all);
        kthread::cond_resched();
        // A page that others can find in the unstable tree merges only if nobody else holds it. So
        // the references to those that stay there go now, and each other one with its page's turn.
        all.retain(|page| page.look_up != LookUp::NotNow);
        for UnmergedPage { item, page, .. } in all.iter() {
            self.records.prefetch_tops(*item, page);
        }
        all.reverse();
        while let Some(unmerged) = all.pop() {
            race_delay::pause(RaceWindow::Hashed);
            self.look_up_and_merge(&unmerged, all.last());
            self.merge.give_up(unmerged.page);
            kthread::cond_resched();
        }
        self.merge.end_batch();
    }

    /// Finds the items of a batch, which is empty then, and deals with KSM pages at once.
    fn find_items(
        &mut self,
        slot: &Arc<MmSlot>,
        cursor: &mut Option<ListCursor>,
        batch: &mut KVec<Candidate>,
        all: &mut KVec<UnmergedPage>,
    ) {
        let mut scanned = 0;
        for Candidate { address, page } in batch.drain_all() {
            let Some(item) = self.item_at(slot, cursor, address) else {
                self.shared.stats.pages_untracked.add(1);
                continue;
            };
            scanned += 1;
            match page {
                FoundPage::Ksm(node) => self.consider_ksm(item, node),
                FoundPage::Anonymous(page) => self.consider_anonymous(item, page, all),
            }
        }
        self.shared.stats.pages_scanned.add(scanned);
    }

    /// The item for `address`; collects those that stand before it.
    fn item_at(
        &mut self,
        slot: &Arc<MmSlot>,
        cursor: &mut Option<ListCursor>,
        address: usize,
    ) -> Option<ItemId> {
        let smart_scan = self.shared.tunables.smart_scan.is_set();
        let ItemFor { item, is_new } = self.records.item_at(cursor, slot, address, smart_scan)?;
        if is_new {
            self.merge.note_new_page();
        }
        Some(item)
    }

    /// A KSM page: ours already, or inherited by a fork.
    ///
    /// The batch holds no reference to it, so `node` may be gone, or another, unless the item is
    /// one of its mappings.
    fn consider_ksm(&mut self, item: ItemId, node: NodeId) {
        if matches!(self.records.place(item), Place::Stable(known) if known == node) {
            self.records.move_to_partition(node);
            return;
        }
        self.records.leave_tree(item);
        self.merging().adopt_fork(item);
    }

    /// A page that is not merged: one more for `all`, which has room for the whole batch.
    fn consider_anonymous(&mut self, item: ItemId, page: PinnedPage, all: &mut KVec<UnmergedPage>) {
        if self.records.make_searchable(item).is_err() {
            self.shared.stats.pages_untracked.add(1);
            return;
        }
        self.records.prefetch_stable_root(item, &page);
        fetch_early(all);
        let _ = all.push_within_capacity(UnmergedPage {
            item,
            page,
            look_up: LookUp::NotNow,
        });
    }

    fn choose_look_ups(&mut self, all: &mut [UnmergedPage]) {
        for index in 0..all.len() {
            let look_up = self.look_up_for(&all[index..]);
            all[index].look_up = look_up;
        }
    }

    /// How the first page of `rest` is looked up.
    fn look_up_for(&mut self, rest: &[UnmergedPage]) -> LookUp {
        let Some(UnmergedPage { item, page, .. }) = rest.first() else {
            return LookUp::NotNow;
        };
        if self.was_that_of_ksm(*item, page) {
            return LookUp::ByLastChecksum;
        }
        if let Some(far) = rest.get(BEGINNINGS_AHEAD) {
            far.page.prefetch(0..1);
        }
        let later = rest.get(PAGES_AHEAD).map_or(page, |later| &later.page);
        let unchanged = self.is_unchanged(*item, page, later);
        // In the unstable tree others find it.
        let is_waiting = self.records.place(*item) == Place::Unstable;
        if !unchanged || is_waiting && !self.is_to_be_renewed(*item) {
            return LookUp::NotNow;
        }
        self.records.leave_tree(*item);
        self.records.prefetch_unstable_root(*item, page);
        LookUp::ByChecksum
    }

    fn is_to_be_renewed(&self, item: ItemId) -> bool {
        let smart_scan = self.shared.tunables.smart_scan.is_set();
        self.records.is_to_be_renewed(item, smart_scan)
    }

    /// Whether the page's checksum of the last scan is that of a KSM page, or of the zero page.
    fn was_that_of_ksm(&self, item: ItemId, page: &PinnedPage) -> bool {
        let checksum = self.records.checksum(item);
        if checksum == UNKNOWN {
            return false;
        }
        let use_zero_pages = self.shared.tunables.use_zero_pages.is_set();
        use_zero_pages && self.merge.keys().is_that_of_zeros(checksum)
            || self.records.has_stable(page, checksum)
    }

    /// Whether the content of `page` is that of the last scan; has the CPU fetch `later` meanwhile.
    fn is_unchanged(&mut self, item: ItemId, page: &PinnedPage, later: &PinnedPage) -> bool {
        let keys = self.merge.keys();
        let checksum =
            page.with_content(|content| later.with_content(|ahead| keys.checksum(content, ahead)));
        self.records.note_checksum(item, checksum)
    }

    /// Merges the page with an equal one, or leaves it where it can be found.
    fn look_up_and_merge(&mut self, unmerged: &UnmergedPage, next: Option<&UnmergedPage>) {
        let UnmergedPage {
            item,
            page,
            look_up,
        } = unmerged;
        // Any other has been read a moment ago.
        let next = next.filter(|next| next.look_up == LookUp::ByLastChecksum);
        let pages = (page, next.map_or(page, |next| &next.page));
        match look_up {
            LookUp::NotNow => {}
            LookUp::ByChecksum => self.seek_equal(*item, pages, |_| true),
            LookUp::ByLastChecksum => {
                // An earlier page of the batch may have found it in the unstable tree, and another
                // since then that the page of both is gone.
                if !self.records.has_checksum(*item)
                    || matches!(self.records.place(*item), Place::Stable(_))
                {
                    return;
                }
                self.records.leave_tree(*item);
                self.seek_equal(*item, pages, |work| work.is_unchanged(*item, page, page));
            }
        }
    }

    /// Merges `page` with an equal one. If there is none, leaves it where others can find it, if it
    /// `has_settled`, which is asked only then.
    fn seek_equal(
        &mut self,
        item: ItemId,
        (page, next): (&PinnedPage, &PinnedPage),
        has_settled: impl FnOnce(&mut Self) -> bool,
    ) {
        let mut merging = self.merging();
        if merging.merge_with_zero_page(item, page) {
            return;
        }
        let attempt = merging.merge_with_stable(item, (page, next));
        if attempt == Attempt::NotMade && has_settled(self) {
            self.merging().meet_in_unstable(item, page);
        }
    }

    fn merging(&mut self) -> Merging<'_> {
        Merging::new(self.shared, self.records, self.merge, self.mm)
    }
}

/// Asks the CPU to fetch some lines of one of the first pages of a batch that grows.
fn fetch_early(all: &[UnmergedPage]) {
    let line = all.len() * LINES_PER_ITEM;
    if let Some(early) = all.iter().take(PAGES_AHEAD).nth(line / LINES) {
        let first = line % LINES;
        early.page.prefetch(first..first + LINES_PER_ITEM);
    }
}
