// SPDX-License-Identifier: GPL-2.0

//! What address spaces have told of changes, until somebody takes notice.
//!
//! Whoever changes mappings tells, under locks that do not go with waiting for the scan mutex. What cannot be looked at
//! at once is noted. There is room for a few ranges; more than that become wider ones.

#![deny(unsafe_code)]

use crate::records::registry::MmSlot;
use core::ops::Range;
use kernel::{
    list::{
        impl_list_arc_safe,
        impl_list_item,
        AtomicTracker,
        List,
        ListArc,
        ListLinks,
        TryNewListArc, //
    },
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// Ranges of an address space that are told apart.
const ROOM: usize = 8;

/// Ranges of addresses, none of which touches another.
#[derive(Clone, Default)]
pub(super) struct Ranges {
    ranges: [Range<usize>; ROOM],
    count: usize,
}

impl Ranges {
    /// Adds the addresses of `range`, and perhaps some between two ranges.
    fn add(&mut self, mut range: Range<usize>) {
        // One that it touches becomes part of it, and that may touch the next.
        while let Some(at) = self.touching(&range) {
            range = union(&range, &self.take(at));
        }
        while self.count == ROOM {
            let at = self.nearest(&range);
            range = union(&range, &self.take(at));
        }
        self.ranges[self.count] = range;
        self.count += 1;
    }

    fn touching(&self, range: &Range<usize>) -> Option<usize> {
        self.iter()
            .position(|other| other.start <= range.end && range.start <= other.end)
    }

    fn nearest(&self, range: &Range<usize>) -> usize {
        let gap = |other: &Range<usize>| {
            let behind = other.start.saturating_sub(range.end);
            behind.max(range.start.saturating_sub(other.end))
        };
        let all = self.iter().map(gap).enumerate();
        all.min_by_key(|(_, gap)| *gap).map_or(0, |(at, _)| at)
    }

    fn take(&mut self, at: usize) -> Range<usize> {
        self.count -= 1;
        self.ranges.swap(at, self.count);
        self.ranges[self.count].clone()
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Range<usize>> {
        self.ranges[..self.count].iter()
    }
}

/// The smallest range that both are in.
fn union(one: &Range<usize>, other: &Range<usize>) -> Range<usize> {
    one.start.min(other.start)..one.end.max(other.end)
}

/// Notices of one address space.
#[pin_data]
pub(super) struct Notices {
    mm_slot: Arc<MmSlot>,
    #[pin]
    ranges: SpinLock<Ranges>,
    inbox: Arc<Inbox>,
    #[pin]
    links: ListLinks,
    #[pin]
    tracker: AtomicTracker,
}

impl_list_arc_safe! {
    impl ListArcSafe<0> for Notices {
        tracked_by tracker: AtomicTracker;
    }
}

impl_list_item! {
    impl ListItem<0> for Notices {
        using ListLinks { self.links };
    }
}

impl Notices {
    /// Of the address space of `mm_slot`; they go to `inbox`.
    pub(super) fn new(mm_slot: Arc<MmSlot>, inbox: Arc<Inbox>) -> Result<Arc<Self>> {
        let notices = pin_init!(Self {
            mm_slot,
            ranges <- new_spinlock!(Ranges::default(), "ksm_rs_notices"),
            inbox,
            links <- ListLinks::new(),
            tracker <- AtomicTracker::new(),
        });
        Arc::pin_init(notices, GFP_KERNEL)
    }

    pub(super) fn slot(&self) -> &Arc<MmSlot> {
        &self.mm_slot
    }

    /// Notes that pages in `range` have changed.
    pub(super) fn note(self: &Arc<Self>, range: Range<usize>) {
        self.ranges.lock().add(range);
        // If they are in the inbox already, whoever takes them out takes this range as well.
        if let Ok(notices) = ListArc::try_from_arc(self.clone()) {
            self.inbox.list.lock().push_back(notices);
        }
    }

    /// Takes what was noted so far.
    pub(super) fn take(&self) -> Ranges {
        core::mem::take(&mut *self.ranges.lock())
    }
}

/// The notices of all address spaces that have any.
#[pin_data]
pub(super) struct Inbox {
    #[pin]
    list: SpinLock<List<Notices>>,
}

impl Inbox {
    pub(super) fn new() -> Result<Arc<Self>> {
        let inbox = pin_init!(Self {
            list <- new_spinlock!(List::new(), "ksm_rs_inbox"),
        });
        Arc::pin_init(inbox, GFP_KERNEL)
    }

    /// Takes out the notices of one address space. What is noted from now on brings them back.
    pub(super) fn pop(&self) -> Option<Arc<Notices>> {
        let notices = self.list.lock().pop_front()?;
        Some(notices.into_arc())
    }
}

#[kernel::macros::kunit_tests(ksm_rs_notices)]
mod tests {
    use super::*;
    use crate::mm::address_space::EmptyMms;

    fn sorted(ranges: &Ranges) -> [Range<usize>; ROOM] {
        let mut all = Ranges::default().ranges;
        for (at, range) in ranges.iter().enumerate() {
            all[at] = range.clone();
        }
        all[..ranges.count].sort_unstable_by_key(|range| range.start);
        all
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for range in [10..20, 40..50, 30..40, 22..28] {
            ranges.add(range);
        }
        assert_eq!(sorted(&ranges)[..3], [10..20, 22..28, 30..50]);
        ranges.add(15..32);
        assert_eq!(ranges.count, 1);
        assert_eq!(sorted(&ranges)[0], 10..50);
    }

    #[test]
    fn no_range_is_lost_for_lack_of_room() {
        let mut ranges = Ranges::default();
        for number in 0..ROOM {
            ranges.add(number * 100..number * 100 + 10);
        }
        ranges.add(320..330);
        assert_eq!(ranges.count, ROOM);
        // It has become one with its nearest.
        assert_eq!(sorted(&ranges)[3], 300..330);
    }

    #[test]
    fn notices_are_in_the_inbox_once() -> Result {
        let mms = EmptyMms::new(1)?;
        let slot = Arc::new(MmSlot::new(mms.get(0)), GFP_KERNEL)?;
        let inbox = Inbox::new()?;
        let notices = Notices::new(slot.clone(), inbox.clone())?;
        notices.note(0..10);
        notices.note(20..30);
        let found = inbox.pop().ok_or(EINVAL)?;
        assert!(Arc::ptr_eq(found.slot(), &slot) && inbox.pop().is_none());
        assert_eq!(found.take().iter().count(), 2);
        assert_eq!(found.take().iter().count(), 0);
        notices.note(0..10);
        assert!(inbox.pop().is_some());
        Ok(())
    }
}
