// SPDX-License-Identifier: GPL-2.0

//! The scan if `only_zero_pages` is set: pages of zeros are merged with the zero page, and no others.
//!
//! Nothing is kept of a page, and nothing compared with another one, so one full scan finds all zeros.
//! A page is left at its first line that is not zero.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    merging::{
        MergeState,
        Merging, //
    },
    mm::{
        held_pages::{
            HeldPage,
            HeldPages, //
        },
        ksm_page::walk::{
            Candidate,
            Candidates,
            FoundPage, //
        },
        lru,
        page::PinnedPage, //
    },
    policy::shared::Shared,
    records::Records,
    scan::turns::Turns,
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};

/// How many pages before its turn the first line of a page is fetched.
const LINES_AHEAD: usize = 8;

/// A page of zeros.
struct ZeroPage {
    address: usize,
    page: HeldPage,
}

/// State that a sweep keeps from batch to batch. The scan mutex protects it.
pub(crate) struct ZeroSweep {
    /// Empty between two batches.
    zeros: KVec<ZeroPage>,
    /// The large folio that was looked at last, and whether it is worth a split.
    last_large: Option<(HeldPage, bool)>,
    /// Whether this full scan has drained the LRU batches of all CPUs.
    has_drained: bool,
}

impl ZeroSweep {
    /// For batches of up to `pages` pages.
    pub(crate) fn with_capacity(pages: usize) -> Result<Self> {
        Ok(Self {
            zeros: KVec::with_capacity(pages, GFP_KERNEL)?,
            last_large: None,
            has_drained: false,
        })
    }

    /// Notes that a full scan begins.
    pub(crate) fn begin_scan(&mut self) {
        self.has_drained = false;
    }

    /// Looks at all candidates of `batch`, which is empty then: pages of `mm`.
    pub(crate) fn work_off(
        &mut self,
        shared: &Shared,
        records: &mut Records,
        merge: &mut MergeState,
        mm: &MmWithUser,
        batch: &mut Candidates,
    ) {
        shared.stats.pages_scanned.add(batch.found.len());
        self.find_zeros(shared, batch);
        kthread::cond_resched();
        race_delay::pause(RaceWindow::Hashed);
        let mut turns = Turns::begin(&mut batch.held);
        for at in 0..self.zeros.len() {
            let ZeroPage { address, page } = self.zeros[at];
            let mut merging = Merging::new(shared, records, merge, mm);
            if let Some(pin) = turns.take(page, || merging.pin_page(address)) {
                self.replace(&mut merging, address, &pin);
                turns.end(page, pin, merge);
            }
            kthread::cond_resched();
        }
        drop(turns);
        self.zeros.clear();
        merge.end_batch();
    }

    /// Finds the pages of zeros among the candidates.
    fn find_zeros(&mut self, shared: &Shared, batch: &mut Candidates) {
        let held = &batch.held;
        self.last_large = None;
        for (at, Candidate { address, page }) in batch.found.iter().enumerate() {
            let ahead = batch.found.get(at + LINES_AHEAD);
            if let Some(FoundPage::Anonymous(ahead)) = ahead.map(|ahead| &ahead.page) {
                held.get(*ahead).inspect(|page| page.prefetch(0..1));
            }
            let FoundPage::Anonymous(page) = *page else {
                continue;
            };
            let is_zero = held
                .get(page)
                .is_some_and(|page| page.is_zero_at_each_line());
            if is_zero && self.is_worth_it(shared, held, page) {
                let address = *address;
                let _ = self.zeros.push_within_capacity(ZeroPage { address, page });
            }
        }
        batch.found.clear();
    }

    /// Whether it is worth it to split the folio of `page`, if it has to be: whether there are enough pages
    /// of zeros in it.
    fn is_worth_it(&mut self, shared: &Shared, held: &HeldPages, page: HeldPage) -> bool {
        // A small page needs itself alone.
        let least = shared.tunables.least_equal(held.place_of(page).pages);
        if least <= 1 {
            return true;
        }
        match self.last_large {
            Some((last, worth_it)) if last.is_beside(page) => worth_it,
            _ => {
                let worth_it = held.has_parts(page, least, |part| part.is_zero_at_each_line());
                self.last_large = Some((page, worth_it));
                worth_it
            }
        }
    }

    /// Replaces `page` at `address` by the zero page.
    ///
    /// A page that is new may wait in the LRU batch of a CPU, which has a reference to it. So these are
    /// drained once in a full scan, if a page could not be replaced.
    fn replace(&mut self, merging: &mut Merging<'_>, address: usize, page: &PinnedPage) {
        let result = merging.replace_by_zeros(None, address, page);
        if matches!(result, Some(Err(_))) && merging.take_drain_wanted() && !self.has_drained {
            self.has_drained = true;
            lru::drain_all();
            merging.replace_by_zeros(None, address, page);
        }
    }
}
