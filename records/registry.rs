// SPDX-License-Identifier: GPL-2.0

//! The address spaces that have asked for merging.
//!
//! `madvise`, `prctl`, fork and exec come here with a mmap lock held and must not wait for the
//! scan, so the slots have a lock of their own, a spinlock that nothing nests in. Under it no more
//! than [`SLOTS_AT_ONCE`] slots are looked at.
//!
//! An address space that has ended, or has no advised memory left, may still have items. Its slot is
//! then discarded: `ksmd` frees the items before it scans anything else.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    mm::{
        address_space::user_of,
        domain::Domain, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use kernel::{
    mm::Mm,
    new_spinlock,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    },
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        SpinLock,
        SpinLockGuard, //
    }, //
};

/// Slots that are looked at under one lock.
const SLOTS_AT_ONCE: usize = 32;

/// The registration of one address space; keeps its `mm_struct`, not its memory.
pub(crate) struct MmSlot {
    mm: ARef<Mm>,
    /// The handle by which `ksmd` tracks the mm, or zero; protected by the scan mutex.
    tracked: Atomic<u32>,
    /// The number of the domain in which `ksmd` tracks the mm; protected by the scan mutex.
    domain: Atomic<u64>,
}

impl MmSlot {
    pub(crate) fn new(mm: &Mm) -> Self {
        Self {
            mm: mm.into(),
            tracked: Atomic::new(0),
            domain: Atomic::new(0),
        }
    }

    pub(crate) fn mm(&self) -> &Mm {
        &self.mm
    }

    /// The slot's place in the order of slots.
    pub(crate) fn key(&self) -> usize {
        key_of(&self.mm)
    }

    /// The value of the last [`MmSlot::set_tracked`].
    pub(crate) fn tracked(&self) -> u32 {
        self.tracked.load(Relaxed)
    }

    /// The domain in which the mm is tracked.
    pub(crate) fn domain(&self) -> Domain {
        Domain::from_number(self.domain.load(Relaxed))
    }

    /// Notes in what domain the holder of the scan mutex tracks the mm.
    pub(crate) fn set_domain(&self, domain: Domain) {
        self.domain.store(domain.number(), Relaxed);
    }

    /// Notes under what handle the holder of the scan mutex tracks the mm.
    pub(crate) fn set_tracked(&self, handle: u32) {
        self.tracked.store(handle, Relaxed);
    }
}

fn key_of(mm: &Mm) -> usize {
    mm.as_raw() as usize
}

/// The smallest key that a slot behind the one with `key`, or the first slot, can have.
fn first_behind(key: Option<usize>) -> usize {
    key.map_or(0, |key| key + 1)
}

#[derive(Clone)]
struct Entry {
    slot: Arc<MmSlot>,
    /// The slot may have items, so only the holder of the scan mutex forgets it.
    tracked: bool,
    /// The count of scans when the slot came.
    since: u64,
    /// The count of arrivals when the slot came.
    number: usize,
}

type Node = RBTreeNode<usize, Entry>;

struct Map {
    /// Registered slots, by the addresses of their mms.
    entries: RBTree<usize, Entry>,
    /// Discarded slots, by their numbers: an mm can be registered again meanwhile.
    discarded: RBTree<usize, Entry>,
    /// The count of scans that have begun.
    scans: u64,
    /// How many slots have come, in all.
    arrivals: usize,
}

/// How far a search among the slots has come under one lock.
enum Search {
    Found(Arc<MmSlot>),
    /// The search has passed over the slot with this key, and has to go on behind it.
    Unfinished(usize),
    Missing,
}

impl Map {
    fn search(&mut self, after: Option<usize>, which: Which) -> Search {
        let scans = self.scans;
        let Some(mut cursor) = self.entries.cursor_lower_bound_mut(&first_behind(after)) else {
            return Search::Missing;
        };
        for looked_at in 1.. {
            let entry = cursor.current_mut().1;
            if which == Which::All || entry.since < scans {
                entry.tracked = true;
                return Search::Found(entry.slot.clone());
            }
            if looked_at == SLOTS_AT_ONCE {
                return Search::Unfinished(entry.slot.key());
            }
            match cursor.move_next() {
                Some(next) => cursor = next,
                None => break,
            }
        }
        Search::Missing
    }
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
pub(crate) struct Registry {
    #[pin]
    map: SpinLock<Map>,
}

impl Registry {
    pub(crate) fn new() -> impl PinInit<Self> {
        let map = Map {
            entries: RBTree::new(),
            discarded: RBTree::new(),
            scans: 0,
            arrivals: 0,
        };
        pin_init!(Self {
            map <- new_spinlock!(map, "ksm_rs_slots"),
        })
    }

    /// Whether no address space is registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.lock().entries.is_empty()
    }

    /// Whether the scan has nothing to do: no address space is registered, and no slot is discarded.
    pub(crate) fn is_idle(&self) -> bool {
        let map = self.map.lock();
        map.entries.is_empty() && map.discarded.is_empty()
    }

    /// How many slots have come, in all: if that does not change during a walk, it has missed none.
    pub(crate) fn arrivals(&self) -> usize {
        self.map.lock().arrivals
    }

    /// Registers `mm`, which is not registered.
    pub(crate) fn enter(&self, mm: &Mm) -> Result {
        let slot = Arc::new(MmSlot::new(mm), GFP_KERNEL)?;
        let node = RBTreeNodeReservation::new(GFP_KERNEL)?;
        let mut map = self.map.lock();
        map.arrivals += 1;
        let entry = Entry {
            slot,
            tracked: false,
            since: map.scans,
            number: map.arrivals,
        };
        let key = entry.slot.key();
        map.entries.insert(node.into_node(key, entry));
        Ok(())
    }

    /// Forgets `mm`, which has ended, or discards its slot if there may be items.
    pub(crate) fn exit(&self, mm: &Mm) {
        self.remove_or_discard(key_of(mm), |_| true);
    }

    /// Discards `slot`, whose mm has no advised memory any more.
    pub(crate) fn discard(&self, slot: &Arc<MmSlot>) {
        self.remove_or_discard(slot.key(), |entry| Arc::ptr_eq(&entry.slot, slot));
    }

    fn remove_or_discard(&self, key: usize, condition: impl FnOnce(&Entry) -> bool) {
        let mut map = self.map.lock();
        let kept = match map.entries.get(&key) {
            Some(entry) if condition(entry) => entry.tracked.then(|| entry.clone()),
            _ => return,
        };
        let removed = map.entries.remove_node(&key);
        match (removed, kept) {
            (Some(node), Some(entry)) => {
                // The new entry keeps the slot alive, so nothing is freed under the lock.
                let number = entry.number;
                let node = node.into_reservation().into_node(number, entry);
                map.discarded.insert(node);
            }
            (removed, _) => drop_unlocked(map, removed),
        }
    }

    /// Forgets `slot`, which is registered and has no items.
    pub(crate) fn remove(&self, slot: &Arc<MmSlot>) {
        let mut map = self.map.lock();
        let removed = match map.entries.get(&slot.key()) {
            Some(entry) if Arc::ptr_eq(&entry.slot, slot) => map.entries.remove_node(&slot.key()),
            _ => None,
        };
        drop_unlocked(map, removed);
    }

    /// Notes that there are no items of `slot`, and forgets it if its mm has ended meanwhile.
    pub(crate) fn release(&self, slot: &Arc<MmSlot>) {
        match self.map.lock().entries.get_mut(&slot.key()) {
            Some(entry) if Arc::ptr_eq(&entry.slot, slot) => entry.tracked = false,
            // The slot is discarded.
            _ => return,
        }
        race_delay::pause(RaceWindow::Released);
        // An mm that ends after this is forgotten by `exit`.
        if user_of(slot.mm()).is_none() {
            self.remove(slot);
        }
    }

    /// Notes that a scan begins.
    pub(crate) fn begin_scan(&self) {
        self.map.lock().scans += 1;
    }

    /// The slot of `mm`, if it is registered.
    pub(crate) fn find(&self, mm: &Mm) -> Option<Arc<MmSlot>> {
        let map = self.map.lock();
        map.entries.get(&key_of(mm)).map(|entry| entry.slot.clone())
    }

    /// The first registered slot behind `key`. Its mm may end, and be forgotten, unless it is
    /// tracked already.
    pub(crate) fn next(&self, key: Option<usize>) -> Option<Arc<MmSlot>> {
        let map = self.map.lock();
        let cursor = map.entries.cursor_lower_bound(&first_behind(key))?;
        Some(cursor.current().1.slot.clone())
    }

    /// The first registered slot behind `key`, which counts as tracked from now on; may sleep.
    pub(crate) fn next_tracked(&self, mut key: Option<usize>, which: Which) -> Option<Arc<MmSlot>> {
        loop {
            let search = self.map.lock().search(key, which);
            match search {
                Search::Found(slot) => return Some(slot),
                Search::Unfinished(passed) => key = Some(passed),
                Search::Missing => return None,
            }
            kthread::cond_resched();
        }
    }

    /// The first discarded slot behind that with this number, or of all, and its number.
    pub(crate) fn next_discarded(&self, number: Option<usize>) -> Option<(usize, Arc<MmSlot>)> {
        let map = self.map.lock();
        let cursor = map.discarded.cursor_lower_bound(&first_behind(number))?;
        let (number, entry) = cursor.current();
        Some((*number, entry.slot.clone()))
    }

    /// Forgets the discarded slot with this number, which has no items any more.
    pub(crate) fn forget_discarded(&self, number: usize) {
        let mut map = self.map.lock();
        let removed = map.discarded.remove_node(&number);
        drop_unlocked(map, removed);
    }
}

/// Gives up the lock, and then a slot that was taken out: that may free an mm, which sleeps.
fn drop_unlocked(map: SpinLockGuard<'_, Map>, removed: Option<Node>) {
    drop(map);
    drop(removed);
}

#[kernel::macros::kunit_tests(ksm_rs_registry)]
mod tests {
    use super::*;
    use crate::mm::address_space::EmptyMms;

    fn registry() -> Result<Pin<KBox<Registry>>> {
        KBox::pin_init(Registry::new(), GFP_KERNEL)
    }

    /// How many slots a scan meets.
    fn count_met(registry: &Registry, which: Which) -> usize {
        let (mut key, mut met) = (None, 0);
        while let Some(slot) = registry.next_tracked(key, which) {
            assert!(key.is_none_or(|key| key < slot.key()));
            key = Some(slot.key());
            met += 1;
        }
        met
    }

    #[test]
    fn a_scan_meets_each_slot_once_in_the_order_of_keys() -> Result {
        let (mms, registry) = (EmptyMms::new(5)?, registry()?);
        assert!(registry.is_empty() && registry.is_idle());
        for index in 0..5 {
            registry.enter(mms.get(index))?;
        }
        assert_eq!(registry.arrivals(), 5);
        assert!(!registry.is_empty());
        assert_eq!(count_met(&registry, Which::All), 5);
        Ok(())
    }

    #[test]
    fn a_scan_leaves_out_slots_that_came_after_its_beginning() -> Result {
        let (mms, registry) = (EmptyMms::new(3)?, registry()?);
        registry.enter(mms.get(0))?;
        registry.begin_scan();
        registry.enter(mms.get(1))?;
        registry.enter(mms.get(2))?;
        assert_eq!(count_met(&registry, Which::BeforeScan), 1);
        registry.begin_scan();
        assert_eq!(count_met(&registry, Which::BeforeScan), 3);
        Ok(())
    }

    #[test]
    fn few_slots_are_looked_at_under_one_lock() -> Result {
        const SLOTS: usize = 3 * SLOTS_AT_ONCE;
        let (mms, registry) = (EmptyMms::new(SLOTS)?, registry()?);
        for index in 0..SLOTS {
            registry.enter(mms.get(index))?;
        }
        // All are newer than the scan, so none is found.
        let (mut key, mut locks) = (None, 0);
        loop {
            locks += 1;
            let search = registry.map.lock().search(key, Which::BeforeScan);
            match search {
                Search::Unfinished(passed) => key = Some(passed),
                Search::Missing => break,
                Search::Found(_) => return Err(EINVAL),
            }
        }
        assert!(locks >= SLOTS / SLOTS_AT_ONCE);
        Ok(())
    }

    #[test]
    fn an_exit_forgets_a_slot_without_items_at_once() -> Result {
        let (mms, registry) = (EmptyMms::new(1)?, registry()?);
        registry.enter(mms.get(0))?;
        registry.exit(mms.get(0));
        assert!(registry.is_idle());
        assert!(registry.next_discarded(None).is_none());
        Ok(())
    }

    #[test]
    fn an_exit_discards_a_slot_that_a_scan_has_met() -> Result {
        let (mms, registry) = (EmptyMms::new(2)?, registry()?);
        registry.enter(mms.get(0))?;
        registry.enter(mms.get(1))?;
        assert_eq!(count_met(&registry, Which::All), 2);
        registry.exit(mms.get(0));
        registry.exit(mms.get(1));
        assert!(registry.is_empty() && !registry.is_idle());
        // In the order in which they came.
        for index in 0..2 {
            let (number, slot) = registry.next_discarded(None).ok_or(EINVAL)?;
            assert_eq!(slot.key(), key_of(mms.get(index)));
            registry.forget_discarded(number);
        }
        assert!(registry.is_idle());
        Ok(())
    }

    #[test]
    fn an_mm_can_be_registered_again_while_its_old_slot_is_discarded() -> Result {
        let (mms, registry) = (EmptyMms::new(1)?, registry()?);
        registry.enter(mms.get(0))?;
        let slot = registry.next_tracked(None, Which::All).ok_or(EINVAL)?;
        registry.discard(&slot);
        registry.enter(mms.get(0))?;
        let new = registry.next(None).ok_or(EINVAL)?;
        assert!(!Arc::ptr_eq(&slot, &new));
        // The holder of the old slot does nothing to the new one.
        registry.discard(&slot);
        registry.remove(&slot);
        registry.release(&slot);
        assert!(!registry.is_empty());
        let (number, discarded) = registry.next_discarded(None).ok_or(EINVAL)?;
        assert!(Arc::ptr_eq(&slot, &discarded));
        registry.forget_discarded(number);
        Ok(())
    }

    #[test]
    fn a_released_slot_of_an_ended_mm_is_forgotten() -> Result {
        let (mms, registry) = (EmptyMms::new(1)?, registry()?);
        registry.enter(mms.get(0))?;
        let slot = registry.next_tracked(None, Which::All).ok_or(EINVAL)?;
        // Nobody uses the mm.
        registry.release(&slot);
        assert!(registry.is_idle());
        Ok(())
    }
}
