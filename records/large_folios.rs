// SPDX-License-Identifier: GPL-2.0

//! Large folios that are split for a number of equal pages only.
//!
//! `huge_page_min_equal` says how many pages of a folio must have equals. They are counted by what one
//! scan has found, and the next one merges them: each page notes whether it has an equal, and, when the
//! scan comes to the folio again, whether there were enough of them.

#![deny(unsafe_code)]

use super::{
    tracking::ITEMS_AT_ONCE,
    Records, //
};
use crate::{
    kernel_api::kthread,
    mm::ksm_page::ids::ItemId,
    rmap_item::{
        ListCursor,
        Place, //
    }, //
};
use core::ops::Range;

impl Records {
    /// Notes that the page of `item`, which is not merged, has an equal.
    pub(crate) fn note_equal(&mut self, item: ItemId) {
        self.items[item].note_equal();
    }

    /// Whether the large folio of the page of `item`, which is not merged, is worth a split.
    pub(crate) fn may_split(&self, item: ItemId) -> bool {
        self.items[item].may_split()
    }

    /// Notes for all pages of the folio at `addresses` whether it is worth a split: whether `least` of
    /// them, as far as they stand behind `cursor`, have equals.
    ///
    /// Items of pages below are settled, as [`Records::item_at`] does it.
    pub(crate) fn judge_folio(
        &mut self,
        cursor: &mut ListCursor,
        addresses: &Range<usize>,
        least: usize,
    ) {
        while self.settle_some(cursor, addresses.start) == ITEMS_AT_ONCE {
            kthread::cond_resched();
        }
        let mut ahead = *cursor;
        let mut equal = 0;
        while let Some(item) = self.next_unmerged(&mut ahead, addresses.end) {
            equal += usize::from(self.items[item].has_equal());
        }
        let mut ahead = *cursor;
        while let Some(item) = self.next_unmerged(&mut ahead, addresses.end) {
            self.items[item].set_may_split(equal >= least);
        }
    }

    /// The next item behind `ahead` of a page below `end` that is not merged; moves behind it.
    fn next_unmerged(&self, ahead: &mut ListCursor, end: usize) -> Option<ItemId> {
        loop {
            let item = ahead.next(&self.spaces, &self.items)?;
            if self.items[item].address() >= end {
                return None;
            }
            ahead.step_over(item);
            if !matches!(self.place(item), Place::Stable(_)) {
                return Some(item);
            }
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_large_folios)]
mod tests {
    use super::*;
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    const PAGES: usize = 40;

    /// The pages of a folio among these.
    const FOLIO: Range<usize> = 8..24;

    /// Judges the folio; returns which of all pages may be merged.
    fn judge(records: &mut Records, front: ListCursor, least: usize) -> [bool; PAGES] {
        let addresses = FOLIO.start * PAGE_SIZE..FOLIO.end * PAGE_SIZE;
        // As a scan has met them.
        let mut cursor = front;
        while let Some(item) = records.next_unmerged(&mut cursor, usize::MAX) {
            let scan = records.scan;
            records.items[item].note_met(scan);
        }
        let mut cursor = front;
        records.judge_folio(&mut cursor, &addresses, least);
        let mut may_split = [false; PAGES];
        let mut cursor = front;
        while let Some(item) = records.next_unmerged(&mut cursor, usize::MAX) {
            may_split[records.address(item) / PAGE_SIZE] = records.may_split(item);
        }
        may_split
    }

    fn note_equal(records: &mut Records, front: ListCursor, pages: &[usize]) {
        let mut cursor = front;
        while let Some(item) = records.next_unmerged(&mut cursor, usize::MAX) {
            if pages.contains(&(records.address(item) / PAGE_SIZE)) {
                records.note_equal(item);
            }
        }
    }

    #[test]
    fn a_folio_with_enough_equal_pages_is_worth_a_split() -> Result {
        let (mut records, front) = Records::with_items(PAGES)?;
        // Three of them are none of the folio's.
        note_equal(&mut records, front, &[0, 7, 8, 15, 23, 24]);
        let all = core::array::from_fn(|page| FOLIO.contains(&page));
        for (least, may_split) in [(1, all), (3, all), (4, [false; PAGES]), (2, all)] {
            assert!(judge(&mut records, front, least) == may_split);
        }
        Ok(())
    }

    #[test]
    fn items_of_pages_before_the_folio_are_settled() -> Result {
        let (mut records, front) = Records::with_items(PAGES)?;
        records.begin_scan();
        let mut cursor = front;
        let addresses = FOLIO.start * PAGE_SIZE..FOLIO.end * PAGE_SIZE;
        records.judge_folio(&mut cursor, &addresses, 1);
        // This scan has met no page.
        let counted = records.counters().rmap_items();
        assert_eq!(counted, PAGES - FOLIO.start);
        let next = records.next_unmerged(&mut cursor, usize::MAX);
        assert!(next.is_some_and(|item| records.address(item) == FOLIO.start * PAGE_SIZE));
        Ok(())
    }
}
