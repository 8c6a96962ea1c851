// SPDX-License-Identifier: GPL-2.0

//! Places in the list of items of an address space, to come to an address without going through all of it.
//!
//! The list is linked in one direction. The scan notes a place after each batch, when it goes along the list. A place
//! is known by the item before it, so it goes with that item, whoever frees it.

#![deny(unsafe_code)]

use crate::{
    mm::ksm_page::ids::SpaceId,
    rmap_item::ListCursor, //
};
use core::{
    cmp::Reverse,
    ops::Range, //
};
use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

/// See the [module's description](self).
pub(super) struct Places {
    /// By the addresses of the items before them, the highest first: what is looked for is the last one below an
    /// address.
    by_address: RBTree<Reverse<usize>, ListCursor>,
    /// The address up to which the scan has settled items in this visit: places below are of items that stay.
    settled: usize,
}

impl Places {
    pub(super) fn new() -> Self {
        Self {
            by_address: RBTree::new(),
            settled: 0,
        }
    }

    /// A place in the list of `space` behind which all items from `address` on are, and not many others.
    pub(super) fn before(&self, space: SpaceId, address: usize) -> ListCursor {
        let below = address.checked_sub(1).map(Reverse);
        let place = below.and_then(|below| self.by_address.cursor_lower_bound(&below));
        place.map_or_else(|| ListCursor::front(space), |place| *place.current().1)
    }

    /// Notes the place behind the item at `address`. Without memory for it the way to some items gets longer.
    pub(super) fn note(&mut self, address: usize, place: ListCursor) {
        let _ = self
            .by_address
            .try_create_and_insert(Reverse(address), place, GFP_KERNEL);
    }

    /// The item at `address` is about to be freed.
    pub(super) fn forget(&mut self, address: usize) {
        drop(self.by_address.remove_node(&Reverse(address)));
    }

    /// The scan visits the address space anew. The last visit may have been broken off anywhere.
    pub(super) fn begin_visit(&mut self) {
        self.settled = 0;
    }

    /// The visit may free items up to `end`.
    pub(super) fn forget_up_to(&mut self, end: usize) {
        self.forget_all(&(self.settled.min(end)..end));
    }

    /// The visit has settled items up to `end`.
    pub(super) fn note_settled(&mut self, end: usize) {
        self.settled = end;
    }

    fn forget_all(&mut self, range: &Range<usize>) {
        while let Some(address) = self.last_below(range.end).filter(|at| *at >= range.start) {
            self.forget(address);
        }
    }

    /// The address of the item before the last place whose item is below `end`.
    fn last_below(&self, end: usize) -> Option<usize> {
        let last = Reverse(end.checked_sub(1)?);
        let place = self.by_address.cursor_lower_bound(&last)?;
        Some(place.current().0 .0)
    }
}

#[kernel::macros::kunit_tests(ksm_rs_places)]
mod tests {
    use super::*;
    use crate::records::Records;
    use kernel::page::PAGE_SIZE;

    /// Places behind the items of the pages with these numbers.
    fn fixture(pages: &[usize]) -> Result<(Records, SpaceId, Places)> {
        let (records, space) = Records::with_space(256)?;
        let mut places = Places::new();
        for page in pages {
            places.note(page * PAGE_SIZE, ListCursor::front(space));
        }
        Ok((records, space, places))
    }

    fn count(places: &Places) -> usize {
        places.by_address.iter().count()
    }

    #[test]
    fn places_go_with_their_items() -> Result {
        let (_records, _, mut places) = fixture(&[1, 3, 5, 7])?;
        places.forget(3 * PAGE_SIZE);
        places.forget(4 * PAGE_SIZE);
        assert_eq!(count(&places), 3);
        places.forget_all(&(PAGE_SIZE..6 * PAGE_SIZE));
        assert_eq!(count(&places), 1);
        places.forget_all(&(0..0));
        places.forget_all(&(8 * PAGE_SIZE..usize::MAX));
        assert_eq!(count(&places), 1);
        Ok(())
    }

    #[test]
    fn a_visit_forgets_the_places_of_one_that_was_broken_off() -> Result {
        let (mut records, front) = Records::with_items(8)?;
        let mut places = Places::new();
        let mut cursor = front;
        for item in 0..4 {
            let (next, address) = records.walk_view().next(&cursor).ok_or(EINVAL)?;
            assert_eq!(address, item * PAGE_SIZE);
            cursor.step_over(next);
            places.note(address, cursor);
        }
        places.forget_up_to(2 * PAGE_SIZE);
        places.note_settled(2 * PAGE_SIZE);
        assert_eq!(count(&places), 2);
        // The same visit goes on: what it has settled stays.
        places.note(0, cursor);
        places.forget_up_to(3 * PAGE_SIZE);
        assert_eq!(count(&places), 2);
        places.begin_visit();
        places.forget_up_to(3 * PAGE_SIZE);
        assert_eq!(count(&places), 1);
        drop(records);
        Ok(())
    }
}
