// SPDX-License-Identifier: GPL-2.0

//! How the records of pages follow address spaces that change.
//!
//! The kernel does not tell KSM of an `munmap`, unless it asks to be told. By default it does not ask
//! ([`out_of_sync`]): the scan notices what is gone when it comes by. With `in_sync=1` it does
//! ([`in_sync`]). The rest of the module knows no more of that than [`Following`].

#![deny(unsafe_code)]

#[cfg(CONFIG_MMU_NOTIFIER)]
pub(crate) mod in_sync;
#[cfg(CONFIG_MMU_NOTIFIER)]
mod notices;
pub(crate) mod out_of_sync;
#[cfg(CONFIG_MMU_NOTIFIER)]
mod places;

use crate::{
    records::{
        registry::MmSlot,
        Records, //
    },
    rmap_item::ListCursor, //
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::Arc, //
};

/// Where the scan is in an address space.
pub(crate) struct Position<'a> {
    pub(crate) slot: &'a Arc<MmSlot>,
    /// The place in the list of items, if there is a list. Items before it belong to pages below `address`.
    pub(crate) cursor: &'a mut Option<ListCursor>,
    pub(crate) address: usize,
}

#[cfg(CONFIG_MMU_NOTIFIER)]
impl Position<'_> {
    /// The place in the list of items of the address space of `slot`, if the scan is there.
    fn in_list_of(&mut self, slot: &MmSlot) -> Option<&mut ListCursor> {
        match core::ptr::eq(&**self.slot, slot) {
            true => self.cursor.as_mut(),
            false => None,
        }
    }
}

/// The holder of the scan mutex, whoever that is.
pub(crate) trait Desk: Send + Sync {
    /// Takes the scan mutex if nobody holds it, and has the change of this range of the address space of `slot`
    /// looked at; returns whether. Does not sleep, and takes no other lock that sleeps.
    fn look_at_once(&self, slot: &MmSlot, range: &Range<usize>) -> bool;
}

/// A way to follow address spaces. The scan mutex is held in all of these.
pub(crate) trait Following: Send + Unpin + 'static {
    /// Whether the kernel tells of changes.
    const IS_IN_SYNC: bool;

    /// Where to go with what is told, from now on.
    fn open(&mut self, desk: Arc<dyn Desk>);

    /// Nothing is to be followed any more; sleeps.
    fn close(&mut self);

    /// As [`Following::catch_up`], of a range of the address space of a slot, under locks of whoever has told.
    /// `position` is where the scan has paused.
    fn catch_up_at_once(
        &mut self,
        records: &mut Records,
        change: (&MmSlot, &Range<usize>),
        position: Option<Position<'_>>,
    );

    /// The scan begins to visit the address space of `slot`.
    fn begin_visit(&mut self, slot: &MmSlot);

    /// Whether pages of the address space of `slot` may be looked at.
    fn follows(&self, slot: &MmSlot) -> bool;

    /// Has pages of the address space of `slot` looked at from now on. The scan is a user of it, and comes again if
    /// this fails.
    fn follow(&mut self, slot: &Arc<MmSlot>, mm: &MmWithUser) -> Result;

    /// Takes away what is known of pages that have changed, if somebody has told, or a part of it. Returns how many
    /// items it has met.
    fn catch_up(&mut self, records: &mut Records, position: Position<'_>) -> usize;

    /// The batch of pages below `end` is about to be worked off: items that it has met no page for may go.
    fn begin_batch(&mut self, slot: &MmSlot, end: usize);

    /// Goes past some items of pages below the address of `position`, and frees those of pages that may be gone.
    /// Returns for how many: fewer than [`ITEMS_AT_ONCE`](crate::records::tracking::ITEMS_AT_ONCE) are all.
    fn settle_some(&mut self, records: &mut Records, position: Position<'_>) -> usize;

    /// All items of `slot` are about to go, and nothing more needs to be known of its address space.
    fn leave(&mut self, slot: &MmSlot);

    /// As [`Following::leave`], of all slots: any items may be about to go.
    fn leave_all(&mut self);
}
