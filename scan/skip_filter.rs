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
            Seen,
            Touches, //
        }, //
    },
    policy::shared::Shared,
    records::walk_view::{
        Untouched,
        WalkView, //
    },
    rmap_item::ListCursor,
    scan::pace::{
        Step,
        Work, //
    }, //
};

/// Steps of a walk under its locks: some tens of microseconds' worth.
const STEPS_IN_WALK: usize = 8 * 1024;

/// The price of passing over a vma, in steps.
const STEPS_FOR_VMA: usize = 1;

/// The price of looking at a page, or of passing over the item of another page.
const STEPS_FOR_PAGE: usize = 8;

/// The price of looking through a page table.
const STEPS_FOR_TABLE: usize = 64;

/// Which pages a walk is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All that need attention.
    All,
    /// Those that may be pages of zeros, whether there is an item or not.
    OnlyZeros,
}

/// The entry in the list of items at the address of a page.
#[derive(Clone, Copy)]
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
    wanted: Wanted,
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
        (step, wanted): (&'a mut Step<'s>, Wanted),
    ) -> Self {
        Self {
            shared,
            records,
            step,
            wanted,
            steps: STEPS_IN_WALK,
            ahead: cursor,
            settled: cursor,
            is_settled: true,
            merged: 0,
        }
    }

    /// The owner of all stable nodes; none is removed during the walk.
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

    /// Finds the item for `address` and steps over it; items of pages below that the walk has not met stay in
    /// the list.
    fn find(&mut self, address: usize) -> Found {
        let found = self.seek(address);
        if let (Found::Item(item), Some(ahead)) = (found, &mut self.ahead) {
            ahead.step_over(item);
        }
        found
    }

    /// Steps over the items of pages below `address`, and finds the one for it.
    fn seek(&mut self, address: usize) -> Found {
        let Some(ahead) = &mut self.ahead else {
            return Found::Nothing;
        };
        while let Some((item, found)) = self.records.next(ahead) {
            if found > address {
                break;
            }
            if found == address {
                return Found::Item(item);
            }
            if self.steps == 0 {
                return Found::TooFar;
            }
            ahead.step_over(item);
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
            Seen::Anonymous(touches) => self.pass_anonymous(item, touches),
        }
    }
}

impl SkipFilter<'_, '_> {
    #[inline]
    fn pass_anonymous(&mut self, item: ItemId, touches: Touches<'_>) -> Option<Work> {
        if !self.is_due(item) {
            if let Some(work) = self.pass_skipped(item) {
                return Some(work);
            }
        }
        // Asked at each look, so that the next one knows what came since.
        let untouched = self.knows_untouched() && !touches.take();
        untouched.then(|| self.pass_untouched(item)).flatten()
    }

    /// Whether the page of `item` is looked at in any case. If the smart scan were asked as well, both would
    /// seldom agree.
    fn is_due(&self, item: ItemId) -> bool {
        self.knows_untouched() && self.records.when_untouched(item) == Untouched::Due
    }

    /// Passes over the page of `item` if the smart scan does. To be asked once a scan.
    #[inline]
    fn pass_skipped(&mut self, item: ItemId) -> Option<Work> {
        let is_skipped =
            self.shared.tunables.smart_scan.is_set() && self.records.pass_skipped(item);
        is_skipped.then(|| {
            self.shared.stats.pages_skipped.add(1);
            Work::Small
        })
    }

    /// Passes over the page of `item`, which nobody has touched, if that is a reason to.
    #[inline]
    fn pass_untouched(&mut self, item: ItemId) -> Option<Work> {
        self.records.pass_untouched(item).then(|| {
            self.shared.stats.pages_untouched.add(1);
            Work::Untouched
        })
    }

    /// Charges `work` for a page whose item was stepped over, and needs no attention.
    fn passed(&mut self, work: Work) {
        self.step.charge(work, 1);
        if self.is_settled {
            self.settled = self.ahead;
        }
    }
}

impl Filter for SkipFilter<'_, '_> {
    fn enters_table(&mut self) -> bool {
        self.goes_on(Work::Table, STEPS_FOR_TABLE)
    }

    #[inline]
    fn knows_untouched(&self) -> bool {
        self.shared.tunables.skip_untouched.is_set()
    }

    #[inline]
    fn passes_untouched(&mut self, address: usize) -> bool {
        if self.steps == 0 || !self.step.has_left() || self.wanted == Wanted::OnlyZeros {
            return false;
        }
        let Found::Item(item) = self.seek(address) else {
            return false;
        };
        // The smart scan may be asked once only, so not about a page that is looked at next.
        if self.records.when_untouched(item) != Untouched::Passed {
            return false;
        }
        let work = self
            .pass_skipped(item)
            .or_else(|| self.pass_untouched(item));
        if let (Some(work), Some(ahead)) = (work, &mut self.ahead) {
            ahead.step_over(item);
            self.take(STEPS_FOR_PAGE);
            self.passed(work);
        }
        work.is_some()
    }

    #[inline]
    fn decide(&mut self, address: usize, page: Seen<'_>) -> Decision {
        if self.steps == 0 || !self.step.has_left() {
            return Decision::Stop;
        }
        self.take(STEPS_FOR_PAGE);
        let passed = match (self.wanted, page) {
            (Wanted::OnlyZeros, Seen::Anonymous(_)) => None,
            _ => match self.find(address) {
                Found::Item(item) => self.pass(item, page),
                Found::Nothing => None,
                Found::TooFar => return Decision::Stop,
            },
        };
        let Some(work) = passed else {
            self.step.charge(Work::Page, 1);
            self.is_settled = false;
            return Decision::Take;
        };
        self.passed(work);
        Decision::Pass
    }
}

#[kernel::macros::kunit_tests(ksm_rs_skip_filter)]
mod tests {
    use super::*;
    use crate::{
        containers::rbtree::Verdict,
        kernel_api::kthread::Current,
        mm::page::fresh,
        records::{
            walk_view::SCANS_UNTOUCHED,
            Records, //
        },
        scan::pace::Waiters, //
    };
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    /// More pages than any test has.
    const MANY: usize = 1 << 20;

    /// Scans of the smart scan until it has skipped a page that never finds an equal.
    const SCANS: usize = 5;

    fn shared(records: &Records) -> Result<Pin<KBox<Shared>>> {
        KBox::pin_init(Shared::new(records.counters()), GFP_KERNEL)
    }

    /// Calls `walk` with a filter from `cursor` on, in a step of `pages` pages; returns what
    /// [`SkipFilter::finish`] does.
    fn filter(
        shared: &Shared,
        records: &mut Records,
        cursor: Option<ListCursor>,
        pages: usize,
        walk: impl FnOnce(&mut SkipFilter<'_, '_>),
    ) -> (Option<ListCursor>, usize) {
        let (waiters, thread) = (Waiters::new(), Current::in_kunit());
        let mut step = Step::new(&waiters, &thread, pages);
        let mut filter = SkipFilter::new(
            shared,
            records.walk_view(),
            cursor,
            (&mut step, Wanted::All),
        );
        walk(&mut filter);
        filter.finish()
    }

    fn decide(filter: &mut SkipFilter<'_, '_>, page: usize) -> Decision {
        decide_on(filter, page, true)
    }

    fn decide_on(filter: &mut SkipFilter<'_, '_>, page: usize, touched: bool) -> Decision {
        let seen = Seen::Anonymous(Touches::Fake(touched));
        filter.decide(page * PAGE_SIZE, seen)
    }

    /// The pages that the walk over `pages` took as candidates.
    fn count_taken(filter: &mut SkipFilter<'_, '_>, pages: usize) -> usize {
        (0..pages)
            .filter(|page| decide(filter, *page) == Decision::Take)
            .count()
    }

    #[test]
    fn a_page_without_an_item_is_taken() -> Result {
        let (mut records, _) = Records::with_items(0)?;
        let shared = shared(&records)?;
        let (cursor, merged) = filter(&shared, &mut records, None, MANY, |filter| {
            assert!(decide(filter, 7) == Decision::Take);
        });
        assert!(cursor.is_none() && merged == 0);
        Ok(())
    }

    #[test]
    fn an_old_page_is_skipped_if_the_smart_scan_is_on() -> Result {
        for smart_scan in [0, 1] {
            let (mut records, front) = Records::with_items(3)?;
            let shared = shared(&records)?;
            shared.tunables.smart_scan.set(smart_scan);
            let mut taken = 0;
            for _ in 0..SCANS {
                records.begin_scan();
                filter(&shared, &mut records, Some(front), MANY, |filter| {
                    taken += count_taken(filter, 3);
                });
            }
            let skipped = shared.stats.pages_skipped.get();
            assert_eq!(taken + skipped, 3 * SCANS);
            assert!((skipped > 0) == (smart_scan == 1));
        }
        Ok(())
    }

    #[test]
    fn the_walk_is_settled_up_to_the_first_page_that_needs_attention() -> Result {
        let (mut records, front) = Records::with_items(4)?;
        let shared = shared(&records)?;
        // All but the third become so old that the last scan skips them.
        for _ in 1..SCANS {
            records.begin_scan();
            filter(&shared, &mut records, Some(front), MANY, |filter| {
                for page in [0, 1, 3] {
                    decide(filter, page);
                }
            });
        }
        records.begin_scan();
        let (settled, _) = filter(&shared, &mut records, Some(front), MANY, |filter| {
            assert!(decide(filter, 0) == Decision::Pass);
            assert!(decide(filter, 1) == Decision::Pass);
            assert!(decide(filter, 2) == Decision::Take);
            assert!(decide(filter, 3) == Decision::Pass);
        });
        let next = settled.and_then(|settled| records.walk_view().next(&settled));
        assert!(next.is_some_and(|(_, address)| address == 2 * PAGE_SIZE));
        Ok(())
    }

    #[test]
    fn an_item_of_no_page_is_not_settled() -> Result {
        let (mut records, front) = Records::with_items(3)?;
        let shared = shared(&records)?;
        // The walk does not meet the first page.
        let (settled, _) = filter(&shared, &mut records, Some(front), MANY, |filter| {
            assert!(decide(filter, 1) == Decision::Take);
        });
        let next = settled.and_then(|settled| records.walk_view().next(&settled));
        assert!(next.is_some_and(|(_, address)| address == 0));
        Ok(())
    }

    #[test]
    fn a_walk_for_zeros_takes_old_pages_too() -> Result {
        let (mut records, front) = Records::with_items(4)?;
        let shared = shared(&records)?;
        let (waiters, thread) = (Waiters::new(), Current::in_kunit());
        for _ in 0..SCANS {
            records.begin_scan();
            let mut step = Step::new(&waiters, &thread, MANY);
            let wanted = (&mut step, Wanted::OnlyZeros);
            let mut filter = SkipFilter::new(&shared, records.walk_view(), Some(front), wanted);
            assert_eq!(count_taken(&mut filter, 4), 4);
        }
        assert_eq!(shared.stats.pages_skipped.get(), 0);
        // This scan has met none of the items, so they go.
        let mut cursor = front;
        records.settle_some(&mut cursor, 4 * PAGE_SIZE);
        assert_eq!(records.counters().rmap_items(), 0);
        Ok(())
    }

    #[test]
    fn a_walk_ends_with_its_step() -> Result {
        let (mut records, _) = Records::with_items(0)?;
        let shared = shared(&records)?;
        filter(&shared, &mut records, None, 3, |filter| {
            assert_eq!(count_taken(filter, 10), 3);
            assert!(decide(filter, 10) == Decision::Stop);
            assert!(!filter.enters_table() && !filter.enters_vma());
        });
        Ok(())
    }

    #[test]
    fn a_walk_ends_after_some_steps_under_its_locks() -> Result {
        const PAGES: usize = STEPS_IN_WALK / STEPS_FOR_PAGE;
        let (mut records, front) = Records::with_items(2 * PAGES)?;
        let shared = shared(&records)?;
        filter(&shared, &mut records, None, MANY, |filter| {
            assert_eq!(count_taken(filter, 2 * PAGES), PAGES);
        });
        // Items of other pages that stand before the page count, too.
        filter(&shared, &mut records, Some(front), MANY, |filter| {
            assert!(decide(filter, 2 * PAGES) == Decision::Stop);
        });
        Ok(())
    }

    /// Has the first item after `cursor` wait for an equal.
    fn wait(records: &mut Records, cursor: &ListCursor) -> Result {
        let next = records.walk_view().next(cursor);
        let (item, _) = next.ok_or(EINVAL)?;
        records.make_searchable(item)?;
        records.note_checksum(item, 5);
        let page = fresh::page(1)?;
        records.search_or_wait(item, &page, |_, _| Verdict::Before);
        Ok(())
    }

    /// Has the filter meet a page whose entry was looked at before.
    fn meet_entry(filter: &mut SkipFilter<'_, '_>, page: usize, touched: bool) -> Decision {
        let asks = filter.knows_untouched() && !touched;
        match asks && filter.passes_untouched(page * PAGE_SIZE) {
            true => Decision::Pass,
            false => decide_on(filter, page, touched),
        }
    }

    #[test]
    fn an_untouched_page_that_waits_is_looked_at_now_and_then() -> Result {
        const SCANS: usize = 3 * SCANS_UNTOUCHED;
        for (skip_untouched, touched, looks) in [(1, false, 3), (1, true, SCANS), (0, false, SCANS)]
        {
            for meet in [decide_on, meet_entry] {
                let (mut records, front) = Records::with_items(2)?;
                let shared = shared(&records)?;
                shared.tunables.smart_scan.set(0);
                shared.tunables.skip_untouched.set(skip_untouched);
                wait(&mut records, &front)?;
                let mut taken = [0; 2];
                for _ in 0..SCANS {
                    records.begin_scan();
                    filter(&shared, &mut records, Some(front), MANY, |filter| {
                        for (page, taken) in taken.iter_mut().enumerate() {
                            let decision = meet(filter, page, touched);
                            *taken += usize::from(decision == Decision::Take);
                        }
                    });
                }
                // The second page does not wait: what it holds is not known yet.
                assert_eq!(taken, [looks, SCANS]);
                assert_eq!(shared.stats.pages_untouched.get(), SCANS - looks);
            }
        }
        Ok(())
    }

    #[test]
    fn the_smart_scan_does_not_keep_untouched_pages_from_their_look() -> Result {
        const LOOKS: usize = 5;
        for meet in [decide_on, meet_entry] {
            let (mut records, front) = Records::with_items(1)?;
            let shared = shared(&records)?;
            shared.tunables.smart_scan.set(1);
            shared.tunables.skip_untouched.set(1);
            wait(&mut records, &front)?;
            let mut taken = 0;
            for _ in 0..LOOKS * SCANS_UNTOUCHED {
                records.begin_scan();
                filter(&shared, &mut records, Some(front), MANY, |filter| {
                    taken += usize::from(meet(filter, 0, false) == Decision::Take);
                });
            }
            let passed = shared.stats.pages_skipped.get() + shared.stats.pages_untouched.get();
            assert!(shared.stats.pages_skipped.get() > 0);
            assert_eq!([taken, passed], [LOOKS, LOOKS * (SCANS_UNTOUCHED - 1)]);
        }
        Ok(())
    }

    #[test]
    fn a_walk_over_untouched_pages_ends_with_its_step() -> Result {
        let (mut records, front) = Records::with_items(1)?;
        let shared = shared(&records)?;
        shared.tunables.skip_untouched.set(1);
        wait(&mut records, &front)?;
        records.begin_scan();
        filter(&shared, &mut records, Some(front), 0, |filter| {
            assert!(!filter.passes_untouched(0));
            assert!(decide(filter, 0) == Decision::Stop);
        });
        Ok(())
    }
}
