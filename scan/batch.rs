// SPDX-License-Identifier: GPL-2.0

//! The way of a batch of candidates: items, checksums, look-ups, merges.
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
        domain::Domain,
        held_pages::{
            FolioPart,
            HeldPage,
            HeldPages, //
        },
        ksm_page::{
            ids::{
                ItemId,
                NodeId, //
            },
            walk::{
                Candidate,
                Candidates,
                FoundPage, //
            }, //
        },
        page::{
            Page,
            PinnedPage, //
        }, //
    },
    page::content::LINES,
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
    scan::{
        look_up::{
            LookUp,
            LookUpChoice,
            UnmergedPage,
            PAGES_AHEAD, //
        },
        turns::Turns, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// How many lines of the first pages of a batch are fetched for each item that is found. Later pages are
/// fetched while an earlier one is hashed.
const LINES_PER_ITEM: usize = 2;

/// See the [module's description](self).
pub(crate) struct BatchWork<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) records: &'a mut Records,
    pub(crate) merge: &'a mut MergeState,
    /// The address space of the candidates.
    pub(crate) mm: &'a MmWithUser,
    /// Its domain when they were found.
    pub(crate) domain: Domain,
    /// The addresses of the large folio that was judged last.
    pub(crate) judged: &'a mut Range<usize>,
}

impl BatchWork<'_> {
    /// Looks at all candidates of `batch`, which is empty then, and so is `all`, which has room for
    /// as many. `slot` is that of the address space, `cursor` the place in its list of items.
    pub(crate) fn work_off(
        &mut self,
        slot: &Arc<MmSlot>,
        cursor: &mut Option<ListCursor>,
        batch: &mut Candidates,
        all: &mut KVec<UnmergedPage>,
    ) {
        self.find_items(slot, cursor, batch, all);
        kthread::cond_resched();
        self.choice().choose_all(&batch.held, all);
        kthread::cond_resched();
        self.release_those_that_stay(&mut batch.held, all);
        all.reverse();
        let mut turns = Turns::begin(&mut batch.held);
        while let Some(unmerged) = all.pop() {
            race_delay::pause(RaceWindow::Hashed);
            let address = self.records.address(unmerged.item);
            let page = turns.take(unmerged.page, || self.merging().pin_page(address));
            if let Some(page) = page {
                let next = all.last().filter(|next| next.is_to_be_read());
                let next = next.and_then(|next| turns.held().get(next.page));
                self.look_up_and_merge(&unmerged, (&page, next.unwrap_or(&page)));
                turns.end(unmerged.page, page, self.merge);
            }
            kthread::cond_resched();
        }
        drop(turns);
        self.merge.end_batch();
    }

    /// Gives up the references to pages that others can find in the unstable tree: they merge only if
    /// nobody else holds them. Each other one goes with its page's turn.
    fn release_those_that_stay(&mut self, held: &mut HeldPages, all: &mut KVec<UnmergedPage>) {
        for UnmergedPage {
            item,
            page,
            look_up,
        } in all.iter()
        {
            match (look_up, held.get(*page)) {
                (LookUp::NotNow, Some(_)) if !held.is_large(*page) => drop(held.take(*page)),
                (LookUp::NotNow, _) | (_, None) => {}
                (_, Some(page)) => self.records.prefetch_tops(*item, page),
            }
        }
        all.retain(|page| page.look_up != LookUp::NotNow);
    }

    /// Finds the items of a batch, which is empty then, and deals with KSM pages at once.
    fn find_items(
        &mut self,
        slot: &Arc<MmSlot>,
        cursor: &mut Option<ListCursor>,
        batch: &mut Candidates,
        all: &mut KVec<UnmergedPage>,
    ) {
        let mut scanned = 0;
        let counts_equal_pages = self.shared.tunables.huge_page_min_equal.get() > 1;
        for Candidate { address, page } in batch.found.drain_all() {
            if let (FoundPage::Anonymous(page), true) = (&page, counts_equal_pages) {
                self.judge_folio(cursor, address, batch.held.place_of(*page));
            }
            let Some(item) = self.item_at(slot, cursor, address) else {
                self.shared.stats.pages_untracked.add(1);
                continue;
            };
            scanned += 1;
            match page {
                FoundPage::Ksm(node) => self.consider_ksm(item, node),
                FoundPage::Anonymous(page) => {
                    self.consider_anonymous(item, (page, &batch.held), all);
                }
            }
        }
        self.shared.stats.pages_scanned.add(scanned);
    }

    /// Judges whether a large folio is worth a split, when the scan comes to the first of its pages. Page
    /// number `part` of so many is at `address`.
    fn judge_folio(
        &mut self,
        cursor: &mut Option<ListCursor>,
        address: usize,
        FolioPart { part, pages }: FolioPart,
    ) {
        let start = address.saturating_sub(part * PAGE_SIZE);
        let addresses = start..start.saturating_add(pages * PAGE_SIZE);
        let Some(cursor) = cursor.as_mut().filter(|_| pages > 1) else {
            return;
        };
        if *self.judged != addresses {
            let least = self.shared.tunables.least_equal(pages);
            self.records.judge_folio(cursor, &addresses, least);
            *self.judged = addresses;
        }
    }

    /// The item for `address`; collects those that stand before it.
    fn item_at(
        &mut self,
        slot: &Arc<MmSlot>,
        cursor: &mut Option<ListCursor>,
        address: usize,
    ) -> Option<ItemId> {
        let smart_scan = self.shared.tunables.smart_scan.is_set();
        let ItemFor { item, is_new } =
            self.records
                .item_at(cursor, (slot, self.domain), address, smart_scan)?;
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
    fn consider_anonymous(
        &mut self,
        item: ItemId,
        (page, held): (HeldPage, &HeldPages),
        all: &mut KVec<UnmergedPage>,
    ) {
        if self.records.make_searchable(item).is_err() {
            self.shared.stats.pages_untracked.add(1);
            return;
        }
        if let Some(page) = held.get(page) {
            self.records.prefetch_stable_root(item, page);
        }
        fetch_early(held, all);
        let _ = all.push_within_capacity(UnmergedPage {
            item,
            page,
            look_up: LookUp::NotNow,
        });
    }

    /// Merges the page with an equal one, or leaves it where it can be found.
    /// Has the CPU fetch `next` meanwhile.
    fn look_up_and_merge(
        &mut self,
        UnmergedPage { item, look_up, .. }: &UnmergedPage,
        pages: (&PinnedPage, &Page),
    ) {
        let page = pages.0;
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
                self.seek_equal(*item, pages, |work| {
                    work.choice().is_unchanged(*item, page, page)
                });
            }
        }
    }

    /// Merges `page` with an equal one. If there is none, leaves it where others can find it, if it
    /// `has_settled`, which is asked only then.
    fn seek_equal(
        &mut self,
        item: ItemId,
        (page, next): (&PinnedPage, &Page),
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

    fn choice(&mut self) -> LookUpChoice<'_> {
        LookUpChoice {
            shared: self.shared,
            records: self.records,
            keys: self.merge.keys(),
        }
    }

    fn merging(&mut self) -> Merging<'_> {
        Merging::new(self.shared, self.records, self.merge, self.mm)
    }
}

/// Asks the CPU to fetch some lines of one of the first pages of a batch that grows.
fn fetch_early(held: &HeldPages, all: &[UnmergedPage]) {
    let line = all.len() * LINES_PER_ITEM;
    let early = all.iter().take(PAGES_AHEAD).nth(line / LINES);
    if let Some(early) = early.and_then(|early| held.get(early.page)) {
        let first = line % LINES;
        early.prefetch(first..first + LINES_PER_ITEM);
    }
}
