// SPDX-License-Identifier: GPL-2.0

//! What becomes of a batch of candidates: items, checksums, look-ups, merges.
//!
//! Each step is done for the whole batch before the next begins, and has the CPU fetch what the
//! next will look at.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    ksmd::Ksm,
    merging::merge::Attempt,
    mm::{
        address_space::UserMm,
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
    records::partition::Partition,
    rmap_item::Place,
    scan::{
        Scanner,
        Visit, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*, //
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

impl Scanner {
    /// Looks at all candidates of a batch, and empties it.
    pub(crate) fn work_off(
        &mut self,
        ksm: &Ksm,
        mm: &UserMm,
        visit: &mut Visit,
        batch: &mut KVec<Candidate>,
    ) {
        let mut all = core::mem::take(&mut self.sought);
        self.find_items(ksm, mm, visit, batch, &mut all);
        kthread::cond_resched();
        self.find_clues(ksm, &mut all);
        kthread::cond_resched();
        // A page that others can find in the unstable tree merges only if nobody else holds it. So
        // the references to those that stay there go now, and each other one with its page's turn.
        all.retain(|sought| sought.clue != Clue::Nothing);
        self.prefetch_tops(&all);
        all.reverse();
        while let Some(sought) = all.pop() {
            race_delay::pause(RaceWindow::Hashed);
            self.follow(ksm, mm, &sought, all.last());
            self.give_up(sought.page);
            kthread::cond_resched();
        }
        self.outgoing.put_all();
        self.prune_chains(ksm);
        self.sought = all;
    }

    /// Gives up the reference to `page`; together with others if the page was replaced, so that
    /// it goes with its last reference.
    pub(crate) fn give_up(&mut self, page: PinnedPage) {
        if !page.folio().is_mapped() {
            self.outgoing.push(page);
        }
    }

    /// Finds the items of a batch, which is empty then, and deals with KSM pages at once.
    fn find_items(
        &mut self,
        ksm: &Ksm,
        mm: &UserMm,
        visit: &mut Visit,
        batch: &mut KVec<Candidate>,
        all: &mut KVec<Sought>,
    ) {
        let mut scanned = 0;
        for Candidate { address, page } in batch.drain_all() {
            let Some(item) = self.item_at(ksm, visit, address) else {
                ksm.stats.pages_untracked.add(1);
                continue;
            };
            scanned += 1;
            match page {
                Met::Ksm(node) => self.consider_ksm(ksm, mm, item, node),
                Met::Anonymous(page) => {
                    if !self.prepare_search(ksm, item) {
                        ksm.stats.pages_untracked.add(1);
                        continue;
                    }
                    self.prefetch_stable_root(item, &page);
                    fetch_early(all);
                    // There is room for the whole batch.
                    let _ = all.push_within_capacity(Sought {
                        item,
                        page,
                        clue: Clue::Nothing,
                    });
                }
            }
        }
        ksm.stats.pages_scanned.add(scanned);
    }

    /// A KSM page: ours already, or inherited by a fork.
    ///
    /// The batch holds no reference to it, so `node` may be gone, or another, unless the item is
    /// one of its mappings.
    fn consider_ksm(&mut self, ksm: &Ksm, mm: &MmWithUser, item: ItemId, node: NodeId) {
        if matches!(self.items[item].place(), Place::Stable(known) if known == node) {
            self.replace_in_partition(ksm, node);
            return;
        }
        self.leave_tree(ksm, item);
        self.adopt_fork(ksm, mm, item);
    }

    /// Sees to it that the page of `item`, which is not merged, can be looked for; returns whether
    /// it can be.
    fn prepare_search(&mut self, ksm: &Ksm, item: ItemId) -> bool {
        self.leave_stale_place(ksm, item);
        self.ensure_unstable_node(item).is_ok()
    }

    /// Takes the item of a page that is not merged out of where it cannot stand any more.
    fn leave_stale_place(&mut self, ksm: &Ksm, item: ItemId) {
        // What has moved to another NUMA node belongs into another tree.
        if self.partitions.by_node() || self.items[item].place() != Place::Unstable {
            self.leave_tree(ksm, item);
        }
    }

    fn find_clues(&mut self, ksm: &Ksm, all: &mut [Sought]) {
        for index in 0..all.len() {
            let clue = self.clue(ksm, &all[index..]);
            all[index].clue = clue;
        }
    }

    /// What is known of the first page of `rest`.
    fn clue(&mut self, ksm: &Ksm, rest: &[Sought]) -> Clue {
        let Some(Sought { item, page, .. }) = rest.first() else {
            return Clue::Nothing;
        };
        if self.was_that_of_ksm(ksm, *item, page) {
            return Clue::OldChecksum;
        }
        if let Some(far) = rest.get(BEGINNINGS_AHEAD) {
            far.page.prefetch(0..1);
        }
        let later = rest.get(PAGES_AHEAD).map_or(page, |later| &later.page);
        let unchanged = self.is_unchanged(ksm, *item, page, later);
        // In the unstable tree others find it.
        let is_waiting = self.items[*item].place() == Place::Unstable;
        if !unchanged || is_waiting && !self.is_to_be_renewed(ksm, *item) {
            return Clue::Nothing;
        }
        self.leave_tree(ksm, *item);
        self.prefetch_unstable_root(*item, page);
        Clue::Checksum
    }

    /// Whether the page's checksum of the last scan is that of a KSM page, or of the zero page.
    fn was_that_of_ksm(&self, ksm: &Ksm, item: ItemId, page: &PinnedPage) -> bool {
        let checksum = self.checksum_of(item);
        if checksum == UNKNOWN {
            return false;
        }
        if ksm.tunables.use_zero_pages.is_set() && self.keys.is_that_of_zeros(checksum) {
            return true;
        }
        let trees = self.trees_of(page);
        trees.stable.has(&self.nodes, checksum)
    }

    /// Whether the content of `page` is that of the last scan; has the CPU fetch `later` meanwhile.
    fn is_unchanged(
        &mut self,
        ksm: &Ksm,
        item: ItemId,
        page: &PinnedPage,
        later: &PinnedPage,
    ) -> bool {
        let checksum = page
            .with_content(|content| later.with_content(|ahead| self.keys.checksum(content, ahead)));
        let unchanged = self.checksum_of(item) == checksum;
        if !unchanged {
            // In a tree it stands under its checksum.
            self.leave_tree(ksm, item);
            self.unstable_nodes[item].set_checksum(checksum);
        }
        unchanged
    }

    /// Merges the page with an equal one, or leaves it where it can be found.
    fn follow(&mut self, ksm: &Ksm, mm: &UserMm, sought: &Sought, next: Option<&Sought>) {
        let Sought { item, page, clue } = sought;
        // Any other has been read a moment ago.
        let next = next.filter(|next| next.clue == Clue::OldChecksum);
        let pages = (page, next.map_or(page, |next| &next.page));
        match clue {
            Clue::Nothing => {}
            Clue::Checksum => self.seek_equal(ksm, mm, *item, pages, |_| true),
            Clue::OldChecksum => {
                // An earlier page of the batch may have found it in the unstable tree, and another
                // since then that the page of both is gone.
                if !self.has_unstable_node(*item)
                    || matches!(self.items[*item].place(), Place::Stable(_))
                {
                    return;
                }
                self.leave_tree(ksm, *item);
                self.seek_equal(ksm, mm, *item, pages, |scanner| {
                    scanner.is_unchanged(ksm, *item, page, page)
                });
            }
        }
    }

    /// Merges `page` with an equal one. If there is none, leaves it where others can find it, if it
    /// `has_settled`, which is asked only then.
    fn seek_equal(
        &mut self,
        ksm: &Ksm,
        mm: &UserMm,
        item: ItemId,
        (page, next): (&PinnedPage, &PinnedPage),
        has_settled: impl FnOnce(&mut Self) -> bool,
    ) {
        if self.merge_with_zero_page(ksm, mm, item, page) {
            return;
        }
        let attempt = self.merge_with_stable(ksm, mm, item, (page, next));
        let waits = attempt == Attempt::NotMade && has_settled(self);
        if waits {
            self.meet_in_unstable(ksm, mm, item, page);
        }
    }

    /// The trees in which the equals of `page` are.
    fn trees_of(&self, page: &PinnedPage) -> &Partition {
        self.partitions.trees(self.partition_of(page))
    }

    fn prefetch_stable_root(&self, item: ItemId, page: &PinnedPage) {
        let checksum = self.checksum_of(item);
        self.trees_of(page).stable.forest().prefetch_root(checksum);
    }

    fn prefetch_unstable_root(&self, item: ItemId, page: &PinnedPage) {
        let checksum = self.checksum_of(item);
        let trees = self.trees_of(page);
        trees.unstable.forest().prefetch_root(checksum);
    }

    /// Asks the CPU to fetch what the look-ups of all pages with a clue will meet first.
    fn prefetch_tops(&self, all: &[Sought]) {
        for Sought { item, page, .. } in all {
            let checksum = self.checksum_of(*item);
            let trees = self.trees_of(page);
            trees.stable.forest().prefetch_top(&self.nodes, checksum);
            trees
                .unstable
                .forest()
                .prefetch_top(&self.unstable_nodes, checksum);
        }
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
