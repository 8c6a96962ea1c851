// SPDX-License-Identifier: GPL-2.0

//! The kernel tells of changes, and what is known of pages that have changed goes at once.
//!
//! Each address space in which the scan finds pages is subscribed to. Who changes mappings is under locks with which neither
//! the scan mutex nor a folio's lock goes, so the change is [noted](super::notices); the holder of the scan mutex
//! takes the records away before it does anything else, and if nobody holds it, that is the one who has told.
//!
//! A subscription does not tell of everything: not of advice that is taken back, for one. So the scan also goes on to
//! free items of pages that it does not meet.
//!
//! An item of a page that is not merged goes in any case. A mapping of a KSM page has to stay listed for as long as
//! an entry may map that page. So the page table is looked at first, which takes the mmap lock: that is left to
//! `ksmd`.

#![deny(unsafe_code)]

use super::{
    notices::{
        Inbox,
        Notices, //
    },
    places::Places,
    Desk,
    Following,
    Position, //
};
use crate::{
    mm::{
        address_space::{
            user_of,
            Patience,
            ReadLockedMm, //
        },
        ksm_page::{
            ids::{
                ItemId,
                NodeId, //
            },
            walk::{
                page_at,
                Candidates,
                FoundPage, //
            }, //
        },
        subscription::{
            await_ends,
            Subscriber,
            Subscription, //
        }, //
    },
    records::{
        registry::MmSlot,
        tracking::ITEMS_AT_ONCE,
        Records, //
    },
    rmap_item::ListCursor, //
};
use core::{
    ops::Range,
    ptr, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*,
    rbtree::RBTree,
    sync::Arc, //
};

/// What a subscription tells, and to whom.
struct Teller {
    notices: Arc<Notices>,
    desk: Arc<dyn Desk>,
}

impl Subscriber for Teller {
    fn changed(&self, addresses: Range<usize>) {
        let slot = self.notices.slot();
        if !self.desk.look_at_once(slot, &addresses) {
            self.notices.note(addresses);
        }
    }
}

/// Items that are gone past or freed under locks of whoever has told; the rest is left to `ksmd`.
const ITEMS_FOR_OTHERS: usize = 4 * ITEMS_AT_ONCE;

/// Items that `ksmd` goes past or frees before the next batch.
const ITEMS_BEFORE_BATCH: usize = 64 * ITEMS_AT_ONCE;

/// How far a walk over the items of a range has come.
#[derive(Default)]
struct Taken {
    /// Items that it has gone past or freed.
    met: usize,
    /// The part of the range that is left to do.
    left: Option<Range<usize>>,
}

/// An address space that is followed.
struct Followed {
    notices: Arc<Notices>,
    places: Places,
}

impl Followed {
    fn new(notices: Arc<Notices>) -> Self {
        Self {
            notices,
            places: Places::new(),
        }
    }

    fn slot(&self) -> &Arc<MmSlot> {
        self.notices.slot()
    }

    /// Frees the items of pages in `range`, but does not meet more than `most`. Without a `looker` those of merged
    /// pages are left to do. `scan` is the place of a visit to this address space, and stays valid.
    fn take_away(
        &mut self,
        records: &mut Records,
        (range, most): (&Range<usize>, usize),
        mut looker: Option<&mut Looker>,
        mut scan: Option<&mut ListCursor>,
    ) -> Taken {
        let mut taken = Taken::default();
        let Some(space) = records.tracked(self.slot()) else {
            return taken;
        };
        let mut cursor = self.places.before(space, range.start);
        loop {
            let next = records.walk_view().next(&cursor);
            let Some((item, address)) = next.filter(|(_, address)| *address < range.end) else {
                return taken;
            };
            if taken.met == most {
                // Who goes on begins here, not at the last place before.
                if looker.is_some() {
                    self.note_place(records, cursor);
                }
                let from = address.max(range.start);
                taken.left = taken.left.or(Some(from..range.end));
                return taken;
            }
            taken.met += 1;
            let stays = address < range.start
                || match &mut looker {
                    Some(looker) => self.stays(records, (item, address), looker),
                    None => records.place(item).node().is_some(),
                };
            if stays && looker.is_none() && address >= range.start {
                taken.left = taken.left.or(Some(address..range.end));
            }
            if stays {
                cursor.step_over(item);
                continue;
            }
            self.places.forget(address);
            records.free_item(&mut cursor, item);
            if let Some(scan) = scan.as_deref_mut() {
                if scan.previous() == Some(item) {
                    *scan = cursor;
                }
            }
        }
    }

    /// Frees the items of pages in all ranges that are noted, but does not meet more than `most`; returns how many. What
    /// is left is noted again.
    fn take_all_away(
        &mut self,
        records: &mut Records,
        most: usize,
        looker: &mut Looker,
        mut scan: Option<&mut ListCursor>,
    ) -> usize {
        let mut met = 0;
        for range in self.notices.take().iter() {
            let wanted = (range, most - met);
            let taken = self.take_away(records, wanted, Some(looker), scan.as_deref_mut());
            met += taken.met;
            if let Some(left) = taken.left {
                self.notices.note(left);
            }
        }
        met
    }

    /// Notes the place of `cursor`.
    fn note_place(&mut self, records: &Records, cursor: ListCursor) {
        if let Some(item) = cursor.previous() {
            self.places.note(records.address(item), cursor);
        }
    }

    /// Whether `item` has to stay, as its page is merged and may still be mapped.
    fn stays(
        &mut self,
        records: &Records,
        (item, address): (ItemId, usize),
        looker: &mut Looker,
    ) -> bool {
        let node = records.place(item).node();
        node.is_some_and(|node| looker.may_be_mapped(records, self.slot(), address, node))
    }

    fn settle_some(&mut self, records: &mut Records, cursor: &mut ListCursor, end: usize) -> usize {
        self.places.forget_up_to(end);
        let passed = records.settle_some(cursor, end);
        if passed < ITEMS_AT_ONCE {
            self.note_place(records, *cursor);
            self.places.note_settled(end);
        }
        passed
    }
}

/// Looks at page tables.
struct Looker {
    patience: Patience,
    page: Candidates,
}

impl Looker {
    /// Whether `address` maps the page of `node`, for all that can be seen at once.
    fn may_be_mapped(
        &mut self,
        records: &Records,
        slot: &MmSlot,
        address: usize,
        node: NodeId,
    ) -> bool {
        // An address space that ends is discarded, and so are all of its items. Where the mmap lock cannot be had,
        // the next visit sees what is gone.
        let Some(mm) = user_of(slot.mm()) else {
            return true;
        };
        let Some(locked) = ReadLockedMm::try_new(&mm, &mut self.patience) else {
            return true;
        };
        let vma = locked.advised_at(address);
        let page = vma.and_then(|vma| page_at(&vma, address, records.nodes(), &mut self.page));
        matches!(page, Some(FoundPage::Ksm(its)) if its == node)
    }
}

/// An address space that tells of its changes.
struct Subscribed {
    followed: Followed,
    _subscription: Subscription<Teller>,
}

/// See the [module's description](self).
pub(crate) struct InSync {
    inbox: Arc<Inbox>,
    /// By [`id_of`] their slots.
    subscribed: RBTree<usize, Subscribed>,
    looker: Looker,
    /// While there is anything to be followed.
    desk: Option<Arc<dyn Desk>>,
}

impl InSync {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self {
            inbox: Inbox::new()?,
            subscribed: RBTree::new(),
            desk: None,
            looker: Looker {
                patience: Patience::default(),
                page: Candidates::with_capacity(1)?,
            },
        })
    }

    fn followed(&mut self, slot: &MmSlot) -> Option<&mut Followed> {
        followed(&mut self.subscribed, slot)
    }
}

impl Following for InSync {
    const IS_IN_SYNC: bool = true;

    fn open(&mut self, desk: Arc<dyn Desk>) {
        self.desk = Some(desk);
    }

    fn close(&mut self) {
        self.desk = None;
        self.leave_all();
        while self.inbox.pop().is_some() {}
        // The code that frees subscriptions must not go before them.
        await_ends();
    }

    fn catch_up_at_once(
        &mut self,
        records: &mut Records,
        (slot, range): (&MmSlot, &Range<usize>),
        mut position: Option<Position<'_>>,
    ) {
        let Some(followed) = self.followed(slot) else {
            return;
        };
        let scan = position
            .as_mut()
            .and_then(|position| position.in_list_of(slot));
        let taken = followed.take_away(records, (range, ITEMS_FOR_OTHERS), None, scan);
        if let Some(left) = taken.left {
            followed.notices.note(left);
        }
    }

    fn begin_visit(&mut self, slot: &MmSlot) {
        if let Some(followed) = self.followed(slot) {
            followed.places.begin_visit();
        }
    }

    fn follows(&self, slot: &MmSlot) -> bool {
        self.subscribed.get(&id_of(slot)).is_some()
    }

    fn follow(&mut self, slot: &Arc<MmSlot>, mm: &MmWithUser) -> Result {
        let notices = Notices::new(slot.clone(), self.inbox.clone())?;
        let teller = Teller {
            notices: notices.clone(),
            desk: self.desk.clone().ok_or(ENODEV)?,
        };
        let subscribed = Subscribed {
            _subscription: Subscription::new(mm, teller)?,
            followed: Followed::new(notices),
        };
        self.subscribed
            .try_create_and_insert(id_of(slot), subscribed, GFP_KERNEL)?;
        Ok(())
    }

    fn catch_up(&mut self, records: &mut Records, mut position: Position<'_>) -> usize {
        self.looker.patience = Patience::default();
        let mut met = 0;
        while met < ITEMS_BEFORE_BATCH {
            let Some(notices) = self.inbox.pop() else {
                break;
            };
            let slot = notices.slot();
            let Some(followed) = followed(&mut self.subscribed, slot) else {
                continue;
            };
            let most = ITEMS_BEFORE_BATCH - met;
            let scan = position.in_list_of(slot);
            met += followed.take_all_away(records, most, &mut self.looker, scan);
        }
        met
    }

    fn begin_batch(&mut self, slot: &MmSlot, end: usize) {
        if let Some(followed) = self.followed(slot) {
            followed.places.forget_up_to(end);
        }
    }

    fn settle_some(&mut self, records: &mut Records, position: Position<'_>) -> usize {
        match (self.followed(position.slot), position.cursor) {
            (Some(followed), Some(cursor)) => {
                followed.settle_some(records, cursor, position.address)
            }
            (None, Some(cursor)) => records.settle_some(cursor, position.address),
            (_, None) => 0,
        }
    }

    fn leave(&mut self, slot: &MmSlot) {
        drop(self.subscribed.remove_node(&id_of(slot)));
    }

    fn leave_all(&mut self) {
        self.subscribed = RBTree::new();
    }
}

fn followed<'a>(
    subscribed: &'a mut RBTree<usize, Subscribed>,
    slot: &MmSlot,
) -> Option<&'a mut Followed> {
    let subscribed = subscribed.get_mut(&id_of(slot));
    subscribed.map(|subscribed| &mut subscribed.followed)
}

/// Tells slots apart, as notices keep those that they are of. Their keys do not: an address space may have a new slot
/// while the last one is still to be collected.
fn id_of(slot: &MmSlot) -> usize {
    ptr::from_ref(slot).addr()
}

#[kernel::macros::kunit_tests(ksm_rs_in_sync)]
mod tests {
    use super::*;
    use crate::mm::{
        address_space::EmptyMms,
        domain::Domain, //
    };
    use kernel::page::PAGE_SIZE;

    const PAGES: usize = 8;

    #[test]
    fn the_place_of_the_scan_outlives_the_items_before_it() -> Result {
        let mms = EmptyMms::new(1)?;
        let slot = Arc::new(MmSlot::new(mms.get(0)), GFP_KERNEL)?;
        let (mut records, _) = Records::with_space(256)?;
        let mut scan = None;
        let meet = |records: &mut Records, scan: &mut _, page: usize| {
            let item = records.item_at(scan, (&slot, Domain::COMMON), page * PAGE_SIZE, false);
            item.ok_or(ENOMEM)
        };
        for page in 0..PAGES {
            meet(&mut records, &mut scan, page)?;
        }
        let mut followed = Followed::new(Notices::new(slot.clone(), Inbox::new()?)?);
        let gone = 5 * PAGE_SIZE..PAGES * PAGE_SIZE;
        let taken = followed.take_away(&mut records, (&gone, PAGES), None, scan.as_mut());
        assert!(taken.met == PAGES && taken.left.is_none());
        meet(&mut records, &mut scan, PAGES)?;

        let mut left = ListCursor::front(records.tracked(&slot).ok_or(EINVAL)?);
        for page in [0, 1, 2, 3, 4, PAGES] {
            let (item, address) = records.walk_view().next(&left).ok_or(EINVAL)?;
            assert_eq!(address, page * PAGE_SIZE);
            left.step_over(item);
        }
        assert!(records.walk_view().next(&left).is_none());
        Ok(())
    }
}
