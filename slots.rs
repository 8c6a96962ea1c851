// SPDX-License-Identifier: GPL-2.0

//! The address spaces that have asked for merging.
//!
//! `madvise`, `prctl`, fork and exec come here with a mmap lock held and must not wait for the
//! scan, so the map has a lock of its own, a spinlock that nothing nests in.

#![deny(unsafe_code)]

use crate::{
    mm::address_space::user_of,
    window::{
        self,
        Window, //
    }, //
};
use kernel::{
    mm::Mm,
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock, //
    }, //
};

/// The registration of one address space; keeps its `mm_struct`, not its memory.
pub(crate) struct MmSlot {
    mm: ARef<Mm>,
    /// The handle by which `ksmd` tracks the mm, or zero; belongs to the scan mutex.
    tracked: Atomic<u32>,
}

impl MmSlot {
    pub(crate) fn mm(&self) -> &Mm {
        &self.mm
    }

    /// The slot's place in the order of slots.
    pub(crate) fn key(&self) -> usize {
        key_of(&self.mm)
    }

    /// What was last set.
    pub(crate) fn tracked(&self) -> u32 {
        self.tracked.load(Relaxed)
    }

    /// Notes under what handle the holder of the scan mutex tracks the mm.
    pub(crate) fn set_tracked(&self, handle: u32) {
        self.tracked.store(handle, Relaxed);
    }
}

fn key_of(mm: &Mm) -> usize {
    mm.as_raw() as usize
}

/// The smallest key that a slot behind that with `key`, or the first, can have.
fn first_behind(key: Option<usize>) -> usize {
    key.map_or(0, |key| key + 1)
}

struct Entry {
    slot: Arc<MmSlot>,
    /// There may be items of it: only who holds the scan mutex takes it out of the map.
    tracked: bool,
    /// The count of scans when it came.
    since: u64,
}

struct Map {
    entries: RBTree<usize, Entry>,
    /// The count of scans that have begun.
    scans: u64,
    /// How many slots have come, in all.
    arrivals: u64,
}

/// Which slots a walk over the map is to see.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Those that were there when the scan began. New ones may settle down a little first: a fork
    /// is often followed by an exec.
    BeforeScan,
}

/// See the [module's description](self).
#[pin_data]
pub(crate) struct Slots {
    #[pin]
    map: SpinLock<Map>,
}

impl Slots {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            map <- new_spinlock!(Map {
                entries: RBTree::new(),
                scans: 0,
                arrivals: 0,
            }),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.map.lock().entries.is_empty()
    }

    /// How many slots have come, in all: if that does not change during a walk, it has missed none.
    pub(crate) fn arrivals(&self) -> u64 {
        self.map.lock().arrivals
    }

    /// Registers `mm`, which is not registered.
    pub(crate) fn enter(&self, mm: &Mm) -> Result {
        let slot = MmSlot {
            mm: mm.into(),
            tracked: Atomic::new(0),
        };
        let slot = Arc::new(slot, GFP_KERNEL)?;
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut map = self.map.lock();
        let entry = Entry {
            slot,
            tracked: false,
            since: map.scans,
        };
        let key = entry.slot.key();
        map.entries.insert(node.into_node(key, entry));
        map.arrivals += 1;
        Ok(())
    }

    /// Forgets `mm`, which has ended, unless there are items of it to collect first.
    pub(crate) fn exit(&self, mm: &Mm) {
        self.remove_if(key_of(mm), |entry| !entry.tracked);
    }

    /// Forgets `slot`, of which there are no items.
    pub(crate) fn remove(&self, slot: &MmSlot) {
        self.remove_if(slot.key(), |_| true);
    }

    /// Notes that there are no items of `slot`, and forgets it if its mm has ended meanwhile.
    pub(crate) fn release(&self, slot: &MmSlot) {
        if let Some(entry) = self.map.lock().entries.get_mut(&slot.key()) {
            entry.tracked = false;
        }
        window::pause(Window::Released);
        // An mm that ends after this is forgotten by `exit`.
        if user_of(slot.mm()).is_none() {
            self.remove(slot);
        }
    }

    /// Notes that a scan begins.
    pub(crate) fn begin_scan(&self) {
        self.map.lock().scans += 1;
    }

    /// The first slot behind `key`. Its mm may end, and be forgotten, unless it is tracked already.
    pub(crate) fn next(&self, key: Option<usize>) -> Option<Arc<MmSlot>> {
        let map = self.map.lock();
        let cursor = map.entries.cursor_lower_bound(&first_behind(key))?;
        Some(cursor.current().1.slot.clone())
    }

    /// The first slot behind `key`, which counts as tracked from now on.
    pub(crate) fn next_tracked(&self, key: Option<usize>, which: Which) -> Option<Arc<MmSlot>> {
        let mut map = self.map.lock();
        let scans = map.scans;
        let mut cursor = map.entries.cursor_lower_bound_mut(&first_behind(key))?;
        loop {
            let entry = cursor.current_mut().1;
            if which == Which::All || entry.since < scans {
                entry.tracked = true;
                return Some(entry.slot.clone());
            }
            cursor = cursor.move_next()?;
        }
    }

    fn remove_if(&self, key: usize, condition: impl FnOnce(&Entry) -> bool) {
        let mut map = self.map.lock();
        let removed = match map.entries.get(&key) {
            Some(entry) if condition(entry) => map.entries.remove_node(&key),
            _ => None,
        };
        // Dropping the entry may free the mm, which sleeps.
        drop(map);
        drop(removed);
    }
}
