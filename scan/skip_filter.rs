// SPDX-License-Identifier: GPL-2.0

//! Which of the pages that a walk meets need attention.
//!
//! Most do not: a page that is merged stays merged, and the smart scan passes over pages that have
//! found no equal for long. While the walk goes through the page tables, this goes through the list
//! of items beside it, and recognises them by a few loads, without a reference to any page.
//!
//! All of that happens under a page-table lock and the mmap lock, so a walk has an end after some
//! steps. The scan settles the items that were gone past once these locks are dropped.

#![deny(unsafe_code)]

use crate::{
    mm::ksm_page::{
        ids::ItemId,
        ksm_folio::AnchorOwner,
        walk::{
            Decision,
            Filter,
            Seen, //
        }, //
    },
    policy::shared::Shared,
    records::walk_view::WalkView,
    rmap_item::ListCursor,
    scan::pace::{
        Step,
        Work, //
    }, //
};

/// Steps of a walk under its locks: some tens of microseconds' worth.
const STEPS_IN_WALK: usize = 8 * 1024;

/// What passing over a vma takes, in steps.
const STEPS_FOR_VMA: usize = 1;

/// What looking at a page takes, or passing over the item of another page.
const STEPS_FOR_PAGE: usize = 8;

/// What looking through a page table takes.
const STEPS_FOR_TABLE: usize = 64;

/// What stands in the list of items at the address of a page.
enum Found {
    Item(ItemId),
    Nothing,
    /// Too many items of other pages stand before it.
    TooFar,
}

/// See the [module's description](self).
pub(crate) struct SkipFilter<'a, 's> {
    shared: &'a Shared,
    records: WalkView<'a>,
    step: &'a mut Step<'s>,
    /// Steps that are left to the walk.
    steps: usize,
    /// The place in the list that the walk has reached, if there is a list.
    ahead: Option<ListCursor>,
    /// The last place before which no item needs attention.
    settled: Option<ListCursor>,
    is_settled: bool,
    merged: usize,
}

impl<'a, 's> SkipFilter<'a, 's> {
    /// For pages whose items stand behind `cursor`, as far as `step` allows.
    pub(crate) fn new(
        shared: &'a Shared,
        records: WalkView<'a>,
        cursor: Option<ListCursor>,
        step: &'a mut Step<'s>,
    ) -> Self {
        Self {
            shared,
            records,
            step,
            steps: STEPS_IN_WALK,
            ahead: cursor,
            settled: cursor,
            is_settled: true,
            merged: 0,
        }
    }

    /// The owner of all stable nodes, of which none is removed during the walk.
    pub(crate) fn nodes(&self) -> &'a (impl AnchorOwner + use<'a, 's>) {
        self.records.nodes()
    }

    /// The place from which to go on with the list, and how many merged pages were passed over.
    pub(crate) fn finish(self) -> (Option<ListCursor>, usize) {
        (self.settled, self.merged)
    }

    /// Whether the walk may go on into another vma, which is charged for.
    pub(crate) fn enters_vma(&mut self) -> bool {
        self.goes_on(Work::Small, STEPS_FOR_VMA)
    }

    /// Whether the walk may go on with what takes so many steps, and is charged as `work`.
    fn goes_on(&mut self, work: Work, steps: usize) -> bool {
        let goes_on = self.steps > 0 && self.step.has_left();
        if goes_on {
            self.step.charge(work, 1);
            self.take(steps);
        }
        goes_on
    }

    fn take(&mut self, steps: usize) {
        self.steps = self.steps.saturating_sub(steps);
    }

    /// Finds the item for `address`; items of pages below that the walk has not met stay in the list.
    fn find(&mut self, address: usize) -> Found {
        let Some(ahead) = &mut self.ahead else {
            return Found::Nothing;
        };
        while let Some((item, found)) = self.records.next(ahead) {
            if found > address {
                break;
            }
            if found < address && self.steps == 0 {
                return Found::TooFar;
            }
            ahead.step_over(item);
            if found == address {
                return Found::Item(item);
            }
            self.steps = self.steps.saturating_sub(STEPS_FOR_PAGE);
            self.is_settled = false;
        }
        Found::Nothing
    }

    /// Passes over the page of `item` if it needs no attention, and notes that; returns what to charge.
    #[inline]
    fn pass(&mut self, item: ItemId, page: Seen<'_>) -> Option<Work> {
        match page {
            Seen::Ksm(anchor) => {
                self.records.pass_merged(item, anchor).then_some(())?;
                self.merged += 1;
                Some(Work::Page)
            }
            // In the unstable tree others go on to find it.
            Seen::Anonymous => {
                let skips = self.shared.tunables.smart_scan.is_set();
                (skips && self.records.pass_skipped(item)).then_some(())?;
                self.shared.stats.pages_skipped.add(1);
                Some(Work::Small)
            }
        }
    }
}

impl Filter for SkipFilter<'_, '_> {
    fn enters_table(&mut self) -> bool {
        self.goes_on(Work::Table, STEPS_FOR_TABLE)
    }

    #[inline]
    fn decide(&mut self, address: usize, page: Seen<'_>) -> Decision {
        if self.steps == 0 || !self.step.has_left() {
            return Decision::Stop;
        }
        self.take(STEPS_FOR_PAGE);
        let passed = match self.find(address) {
            Found::Item(item) => self.pass(item, page),
            Found::Nothing => None,
            Found::TooFar => return Decision::Stop,
        };
        let Some(work) = passed else {
            self.step.charge(Work::Page, 1);
            self.is_settled = false;
            return Decision::Take;
        };
        self.step.charge(work, 1);
        if self.is_settled {
            self.settled = self.ahead;
        }
        Decision::Pass
    }
}
