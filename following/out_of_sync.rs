// SPDX-License-Identifier: GPL-2.0

//! Address spaces change behind the back of the records.
//!
//! A full scan goes through the pages of an address space and through its items, both in the order of addresses. An
//! item that it passes without having met its page is freed.

#![deny(unsafe_code)]

use super::{
    Desk,
    Following,
    Position, //
};
use crate::records::{
    registry::MmSlot,
    Records, //
};
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::Arc, //
};

/// See the [module's description](self).
pub(crate) struct OutOfSync;

impl Following for OutOfSync {
    const IS_IN_SYNC: bool = false;

    fn open(&mut self, _: Arc<dyn Desk>) {}

    fn close(&mut self) {}

    fn catch_up_at_once(
        &mut self,
        _: &mut Records,
        _: (&MmSlot, &Range<usize>),
        _: Option<Position<'_>>,
    ) {
    }

    #[inline]
    fn begin_visit(&mut self, _: &MmSlot) {}

    #[inline]
    fn follows(&self, _: &MmSlot) -> bool {
        true
    }

    #[inline]
    fn follow(&mut self, _: &Arc<MmSlot>, _: &MmWithUser) -> Result {
        Ok(())
    }

    #[inline]
    fn catch_up(&mut self, _: &mut Records, _: Position<'_>) -> usize {
        0
    }

    #[inline]
    fn begin_batch(&mut self, _: &MmSlot, _: usize) {}

    #[inline]
    fn settle_some(&mut self, records: &mut Records, position: Position<'_>) -> usize {
        match position.cursor {
            Some(cursor) => records.settle_some(cursor, position.address),
            None => 0,
        }
    }

    #[inline]
    fn leave(&mut self, _: &MmSlot) {}

    #[inline]
    fn leave_all(&mut self) {}
}
