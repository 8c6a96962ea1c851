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
                Met, //
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
pub(crate) struct Sought {
    item: ItemId,
    page: PinnedPage,
    clue: Clue,
}

/// What leads from a page to its equals.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clue {
    /// Nothing: the page has another checksum than in the last scan, or is where others find it.
    Nothing,
    /// Its checksum, which is that of the last scan.
    Checksum,
    /// The checksum of the last scan, which is that of a KSM page, or of zeros. Whether the content
    /// is still the same will be seen when both are compared: there is no need to read it twice.
    OldChecksum,
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
        all: &mut KVec<Sought>,
    ) {
        self.find_items(slot, cursor, batch, all);
        kthread::cond_resched();
        self.find_clues(all);
        kthread::cond_resched();
        // A page that others can find in the unstable tree merges only if nobody else holds it. So
        // the references to those that stay there go now, and each other one with its page's turn.
        all.retain(|sought| sought.clue != Clue::Nothing);
        for Sought { item, page, .. } in all.iter() {
            self.records.prefetch_tops(*item, page);
        }
        all.reverse();
        while let Some(sought) = all.pop() {
            race_delay::pause(RaceWindow::Hashed);
            self.follow(&sought, all.last());
            self.merge.give_up(sought.page);
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
        all: &mut KVec<Sought>,
    ) {
        let mut scanned = 0;
        for Candidate { address, page } in batch.drain_all() {
            let Some(item) = self.item_at(slot, cursor, address) else {
                self.shared.stats.pages_untracked.add(1);
                continue;
            };
            scanned += 1;
            match page {
                Met::Ksm(node) => self.consider_ksm(item, node),
                Met::Anonymous(page) => self.consider_anonymous(item, page, all),
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
    fn consider_anonymous(&mut self, item: ItemId, page: PinnedPage, all: &mut KVec<Sought>) {
        if self.records.make_searchable(item).is_err() {
            self.shared.stats.pages_untracked.add(1);
            return;
        }
        self.records.prefetch_stable_root(item, &page);
        fetch_early(all);
        let _ = all.push_within_capacity(Sought {
            item,
            page,
            clue: Clue::Nothing,
        });
    }

    fn find_clues(&mut self, all: &mut [Sought]) {
        for index in 0..all.len() {
            let clue = self.clue(&all[index..]);
            all[index].clue = clue;
        }
    }

    /// What is known of the first page of `rest`.
    fn clue(&mut self, rest: &[Sought]) -> Clue {
        let Some(Sought { item, page, .. }) = rest.first() else {
            return Clue::Nothing;
        };
        if self.was_that_of_ksm(*item, page) {
            return Clue::OldChecksum;
        }
        if let Some(far) = rest.get(BEGINNINGS_AHEAD) {
            far.page.prefetch(0..1);
        }
        let later = rest.get(PAGES_AHEAD).map_or(page, |later| &later.page);
        let unchanged = self.is_unchanged(*item, page, later);
        // In the unstable tree others find it.
        let is_waiting = self.records.place(*item) == Place::Unstable;
        if !unchanged || is_waiting && !self.is_to_be_renewed(*item) {
            return Clue::Nothing;
        }
        self.records.leave_tree(*item);
        self.records.prefetch_unstable_root(*item, page);
        Clue::Checksum
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
    fn follow(&mut self, sought: &Sought, next: Option<&Sought>) {
        let Sought { item, page, clue } = sought;
        // Any other has been read a moment ago.
        let next = next.filter(|next| next.clue == Clue::OldChecksum);
        let pages = (page, next.map_or(page, |next| &next.page));
        match clue {
            Clue::Nothing => {}
            Clue::Checksum => self.seek_equal(*item, pages, |_| true),
            Clue::OldChecksum => {
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
fn fetch_early(all: &[Sought]) {
    let line = all.len() * LINES_PER_ITEM;
    if let Some(early) = all.iter().take(PAGES_AHEAD).nth(line / LINES) {
        let first = line % LINES;
        early.page.prefetch(first..first + LINES_PER_ITEM);
    }
}
