// SPDX-License-Identifier: GPL-2.0

//! The pages of one address space that are not merged, counted by the reason.
//!
//! Items are looked at in the order of their handles, a bounded number at a time: between two calls
//! the scan may go on, so the sums are not of one moment.

#![deny(unsafe_code)]

use super::Records;
use crate::{
    mm::ksm_page::ids::{
        ItemId,
        SpaceId, //
    },
    rmap_item::{
        Place,
        RmapItem, //
    }, //
};

/// Items of all address spaces that one call looks at: less than a millisecond.
const ITEMS_AT_ONCE: usize = 1 << 16;

/// Numbers of pages; each page is in one of them.
#[derive(Default)]
pub(crate) struct Census {
    /// Pages in the unstable tree that have found no equal.
    pub(crate) no_equal: usize,
    /// The same; the smart scan passes over them now and then.
    pub(crate) passed_over: usize,
    /// Pages whose equal was found. Somebody uses one of both, or a large folio is not worth a split.
    pub(crate) has_equal: usize,
    /// Pages that are new, or differ from scan to scan.
    pub(crate) changing: usize,
}

impl Census {
    /// Counts the item of a page that is not merged.
    fn count(&mut self, item: &RmapItem) {
        let sum = match item.place() {
            Place::Stable(_) => return,
            _ if item.has_equal() => &mut self.has_equal,
            Place::Nowhere => &mut self.changing,
            Place::Unstable if item.is_old() => &mut self.passed_over,
            Place::Unstable => &mut self.no_equal,
        };
        *sum += 1;
    }
}

impl Records {
    /// Counts items of `space`, of those that come behind `after`; returns the last one that was
    /// looked at, unless there are no more. May sleep.
    pub(crate) fn count_some(
        &self,
        space: SpaceId,
        after: Option<ItemId>,
        census: &mut Census,
    ) -> Option<ItemId> {
        let mut last = after;
        for _ in 0..ITEMS_AT_ONCE {
            let next = self.items.next_after(last)?;
            let item = &self.items[next];
            if item.space() == Some(space) {
                census.count(item);
            }
            last = Some(next);
        }
        last
    }
}
