// SPDX-License-Identifier: GPL-2.0

//! The scan: a walk over the registered address spaces, their advised vmas, and nested in it their
//! lists of items.
//!
//! The unit of work is a batch of candidates found under one mmap lock, which [`crate::scan::batch`] works
//! off: `next batch -> checksum -> look up -> merge`. The cursor stays between calls, so that a scan
//! is done in small steps.

#![deny(unsafe_code)]

pub(crate) mod batch;
pub(crate) mod pace;
pub(crate) mod prune;
pub(crate) mod skip_filter;

use crate::{
    containers::{
        handle_table::Table,
        pool::Pool, //
    },
    kernel_api::{
        gfp,
        kthread,
        module_hold::ModuleHold, //
    },
    ksmd::Ksm,
    mm::{
        address_space::{
            clear_mergeable_flag,
            is_being_unmapped,
            user_of,
            Patience,
            ReadLockedMm, //
        },
        folio_batch::FolioBatch,
        ksm_page::{
            ids::ItemId,
            merged_vma::RecentAreas,
            trace,
            walk::{
                collect_candidates,
                Candidate, //
            }, //
        },
        lru,
        vma::AdvisedVma, //
    },
    page::checksum::Keys,
    policy::advisor,
    records::{
        partition::Partitions,
        registry::{
            MmSlot,
            Which, //
        },
        stable_node::StableNode,
        tracking::ITEMS_AT_ONCE,
        unstable_node::UnstableNode, //
    },
    rmap_item::{
        ListCursor,
        Pass,
        RmapItem,
        TrackedMm, //
    },
    scan::{
        batch::Sought,
        pace::{
            Step,
            Work, //
        },
        prune::Pruning,
        skip_filter::{
            Lists,
            Sieve, //
        }, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// Candidates in a batch: enough to make one mmap lock and page-table walk worthwhile.
const BATCH: usize = 128;

/// After so many full scans a page that waits in the unstable tree looks for its equals anew.
///
/// A page that has not changed stays where it is, and costs no look-up. But two equal pages can
/// stand there side by side: one was something else for a moment, when the other looked for it.
const RENEWAL_SCANS: u32 = 8;

/// How often the scan comes back to an address space whose mmap lock it cannot get, before it leaves
/// that one out until the next full scan.
const LOCK_ATTEMPTS: u8 = 8;

/// An address above all that can be mapped.
const END: usize = usize::MAX;

/// Where the scan is.
enum Stage {
    /// Before the first slot.
    Idle,
    /// Between the slot with this key and the next.
    Between(usize),
    Inside(Visit),
}

/// The visit to one address space.
pub(crate) struct Visit {
    slot: Arc<MmSlot>,
    /// The place in the list of items, if there is a list. Items before it belong to pages below
    /// `address`.
    cursor: Option<ListCursor>,
    /// The address to go on from.
    address: usize,
    /// How often the mmap lock could not be had.
    failed_locks: u8,
}

/// What a batch leaves to be done in its address space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// There may be further pages.
    More,
    /// The rest of the address space was seen.
    Nothing,
    /// No part of it is advised, and it is not registered any more.
    NoAdvice,
    /// Its mmap lock could not be had.
    Contended,
}

/// The state of the scan, protected by the scan mutex.
pub(crate) struct Scanner {
    pub(crate) items: Pool<RmapItem>,
    /// For pages that are not merged, under the number of the item.
    pub(crate) unstable_nodes: Table<UnstableNode>,
    pub(crate) mms: Pool<TrackedMm>,
    pub(crate) nodes: Pool<StableNode>,
    /// Keeps the module from being unloaded while there are nodes.
    pub(crate) module_hold: Option<ModuleHold>,
    pub(crate) partitions: Partitions,
    pub(crate) areas: RecentAreas,
    pub(crate) pass: Pass,
    /// Full scans that have begun, round and round.
    scans: u32,
    pub(crate) keys: Keys,
    pub(crate) pruning: Pruning,
    /// How many further pages are not to be taken for equal at a glance.
    pub(crate) pages_to_doubt: u32,
    pub(crate) advice: advisor::History,
    /// When all this began.
    epoch: Instant<Monotonic>,
    /// Milliseconds from then to when this batch asked for it first, round and round.
    now: Option<u32>,
    stage: Stage,
    batch: KVec<Candidate>,
    pub(crate) sought: KVec<Sought>,
    /// Whether the scan has met pages that may wait in a CPU's LRU batch: new ones, those that would
    /// not merge, and those that have. While they do, they have one reference too many to be merged,
    /// and a mapping that is locked in memory is not counted.
    pub(crate) drain_wanted: bool,
    /// Pages that were replaced, and that nothing but a reference keeps from being freed.
    pub(crate) outgoing: FolioBatch,
    /// Has room for the one page that another is compared with.
    pub(crate) probe: KVec<Candidate>,
    /// How long a batch may still wait for mmap locks.
    pub(crate) patience: Patience,
}

impl Scanner {
    pub(crate) fn new(seed: u64) -> Result<Self> {
        Ok(Self {
            items: Pool::new(),
            unstable_nodes: Table::new(),
            mms: Pool::new(),
            nodes: Pool::new(),
            module_hold: None,
            partitions: Partitions::new(1)?,
            areas: RecentAreas::new(),
            pass: Pass::default(),
            scans: 0,
            keys: Keys::new(seed),
            pruning: Pruning::default(),
            pages_to_doubt: 0,
            advice: advisor::History::default(),
            epoch: Instant::now(),
            now: None,
            stage: Stage::Idle,
            batch: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            sought: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            drain_wanted: false,
            outgoing: FolioBatch::new(),
            probe: KVec::with_capacity(1, GFP_KERNEL)?,
            patience: Patience::default(),
        })
    }

    /// Does one step of the scan, which ends at the end of the full scan at the latest.
    pub(crate) fn scan(&mut self, ksm: &Ksm, step: &mut Step<'_>) {
        while step.has_left() {
            self.collect_discarded(ksm, step);
            let Some(visit) = self.current_visit(ksm) else {
                return;
            };
            self.scan_batch(ksm, visit, step);
            kthread::cond_resched();
            // Not before a batch is done: the scan goes on, however often somebody interrupts it.
            if !step.goes_on() {
                return;
            }
        }
    }

    /// Goes back to before the first slot, as if nothing had been scanned.
    pub(crate) fn rewind(&mut self) {
        self.stage = Stage::Idle;
        self.areas.clear();
    }

    /// Puts new `partitions`, which are empty, in place of the old ones, whose stable trees are.
    #[cfg(CONFIG_NUMA)]
    pub(crate) fn set_partitions(&mut self, ksm: &Ksm, partitions: Partitions) {
        self.rewind();
        self.items.for_each_mut(RmapItem::note_forgotten_tree);
        ksm.stats.pages_unshared.set(0);
        self.partitions = partitions;
    }

    /// Whether the page of `item`, which waits in the unstable tree, is to look for its equals anew.
    pub(crate) fn is_to_be_renewed(&self, ksm: &Ksm, item: ItemId) -> bool {
        // The smart scan seldom looks at old pages. Of all others, each scan renews its share.
        ksm.tunables.smart_scan.is_set() && self.items[item].is_grown_up()
            || self.scans.wrapping_add(item.raw()) % RENEWAL_SCANS == 0
    }

    /// The time in milliseconds, round and round; the clock is read once a batch at most.
    pub(crate) fn now(&mut self) -> u32 {
        let epoch = self.epoch;
        *self
            .now
            .get_or_insert_with(|| epoch.elapsed().as_millis() as u32)
    }

    /// The visit to go on with, or `None` at the end of a full scan.
    fn current_visit(&mut self, ksm: &Ksm) -> Option<Visit> {
        let after = match core::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Inside(visit) => return Some(visit),
            Stage::Between(key) => Some(key),
            Stage::Idle if ksm.slots.is_empty() => return None,
            Stage::Idle => {
                self.begin_full_scan(ksm);
                None
            }
        };
        match ksm.slots.next_tracked(after, Which::BeforeScan) {
            Some(slot) => Some(Visit {
                cursor: self.tracked(&slot).map(ListCursor::front),
                slot,
                address: 0,
                failed_locks: 0,
            }),
            None => {
                self.end_full_scan(ksm);
                None
            }
        }
    }

    fn begin_full_scan(&mut self, ksm: &Ksm) {
        self.advice.begin(&ksm.tunables.advisor);
        trace::start_scan(ksm.stats.full_scans.get(), self.items.len());
        ksm.slots.begin_scan();
        if core::mem::take(&mut self.drain_wanted) {
            lru::drain_all();
        }
        self.pass = self.pass.next();
        self.scans = self.scans.wrapping_add(1);
    }

    fn end_full_scan(&mut self, ksm: &Ksm) {
        self.areas.clear();
        self.advice.end(&ksm.tunables.advisor, &ksm.tunables);
        trace::stop_scan(ksm.stats.full_scans.get(), self.items.len());
        ksm.stats.full_scans.add(1);
    }

    /// Goes on with `visit` by one batch, after all items below its address are settled.
    fn scan_batch(&mut self, ksm: &Ksm, mut visit: Visit, step: &mut Step<'_>) {
        if !self.settle_visit(ksm, &mut visit, step) {
            self.stage = Stage::Inside(visit);
        } else if visit.address == END {
            self.leave_slot(ksm, &visit.slot);
            self.stage = Stage::Between(visit.slot.key());
        } else {
            self.stage = self.walk_batch(ksm, visit, step);
        }
    }

    /// Scans a batch of pages from `visit.address` on; returns where the scan is then.
    fn walk_batch(&mut self, ksm: &Ksm, mut visit: Visit, step: &mut Step<'_>) -> Stage {
        let Some(mm) = user_of(visit.slot.mm()) else {
            // Its exit discards the slot, and so the items.
            return Stage::Between(visit.slot.key());
        };
        self.now = None;
        self.patience = Patience::default();
        let mut batch = core::mem::take(&mut self.batch);
        let left = self.fill_batch(ksm, &mm, &mut visit, step, &mut batch);
        race_delay::pause(RaceWindow::Gathered);
        self.work_off(ksm, &mm, &mut visit, &mut batch);
        self.batch = batch;
        match left {
            Left::More => Stage::Inside(visit),
            Left::Nothing => {
                visit.address = END;
                Stage::Inside(visit)
            }
            Left::NoAdvice => Stage::Between(visit.slot.key()),
            Left::Contended => {
                step.end();
                visit.failed_locks += 1;
                match visit.failed_locks < LOCK_ATTEMPTS {
                    true => Stage::Inside(visit),
                    false => Stage::Between(visit.slot.key()),
                }
            }
        }
    }

    /// Gathers candidates from `visit.address` on, as far as `step` allows.
    fn fill_batch(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        visit: &mut Visit,
        step: &mut Step<'_>,
        batch: &mut KVec<Candidate>,
    ) -> Left {
        let by_node = self.partitions.by_node();
        let lists = Lists {
            mms: &self.mms,
            items: &mut self.items,
            nodes: &self.nodes,
        };
        let room = step.pages().min(BATCH);
        let mut sieve = Sieve::new(ksm, lists, self.pass, by_node, visit.cursor, step);
        let left = match ReadLockedMm::try_new(mm, &mut self.patience) {
            Some(locked) => gather(ksm, &locked, visit, batch, room, &mut sieve),
            None => Left::Contended,
        };
        let (cursor, merged) = sieve.finish();
        visit.cursor = cursor;
        ksm.stats.pages_scanned.add(merged);
        left
    }

    /// Goes past the items below `visit.address`, and frees those that this scan has met no page for;
    /// returns whether that is done.
    fn settle_visit(&mut self, ksm: &Ksm, visit: &mut Visit, step: &mut Step<'_>) -> bool {
        let Some(cursor) = &mut visit.cursor else {
            return true;
        };
        let end = visit.address;
        step.repeat(ITEMS_AT_ONCE, || self.settle_some(ksm, cursor, end))
    }

    /// Frees the items of slots that are discarded, as far as `step` allows.
    fn collect_discarded(&mut self, ksm: &Ksm, step: &mut Step<'_>) {
        let mut last = None;
        while let Some((number, slot)) = ksm.slots.next_discarded(last) {
            step.charge(Work::Trifle, 1);
            if !step.goes_on() {
                return;
            }
            last = Some(number);
            self.break_off_visit(&slot);
            // As long as an entry may map a KSM page, its mapping has to be listed.
            if !is_being_unmapped(slot.mm()) && self.collect_slot(ksm, &slot, step) {
                ksm.slots.forget_discarded(number);
            }
        }
    }

    /// Ends the visit to the address space of `slot`, if there is one: its items are about to go.
    fn break_off_visit(&mut self, slot: &Arc<MmSlot>) {
        if matches!(&self.stage, Stage::Inside(visit) if Arc::ptr_eq(&visit.slot, slot)) {
            self.stage = Stage::Between(slot.key());
        }
    }

    /// Frees the items of `slot`, which is discarded; returns whether that is done.
    fn collect_slot(&mut self, ksm: &Ksm, slot: &MmSlot, step: &mut Step<'_>) -> bool {
        let Some(mm) = self.tracked(slot) else {
            return true;
        };
        let is_done = step.repeat(ITEMS_AT_ONCE, || self.collect_some(ksm, mm));
        if is_done {
            self.end_tracking(slot, mm);
        }
        is_done
    }

    /// The item for `address`; collects those that stand before it.
    pub(crate) fn item_at(
        &mut self,
        ksm: &Ksm,
        visit: &mut Visit,
        address: usize,
    ) -> Option<ItemId> {
        let cursor = match &mut visit.cursor {
            Some(cursor) => cursor,
            none => none.insert(ListCursor::front(self.track(&visit.slot)?)),
        };
        while let Some(item) = cursor.next(&self.mms, &self.items) {
            let next = self.items[item].address();
            if next > address {
                break;
            }
            if next == address {
                cursor.step_over(item);
                return Some(item);
            }
            self.pass_or_collect(ksm, cursor, item);
        }
        self.new_item(ksm, cursor, address)
    }

    fn new_item(&mut self, ksm: &Ksm, cursor: &mut ListCursor, address: usize) -> Option<ItemId> {
        debug_assert!(address % PAGE_SIZE == 0);
        let mut item = RmapItem::new(cursor.mm(), address);
        if ksm.tunables.smart_scan.is_set() {
            // This scan is the first of those that the page is to go through.
            item.is_to_be_skipped();
        }
        let item = self.items.insert(item, gfp::for_item()).ok()?;
        cursor.insert(&mut self.mms, &mut self.items, item);
        self.drain_wanted = true;
        self.count_items(ksm, cursor.mm(), 1);
        Some(item)
    }
}

/// Walks the advised vmas of `locked` from `visit.address` on, until `room` candidates are in `batch`
/// or `sieve` ends the walk.
fn gather(
    ksm: &Ksm,
    locked: &ReadLockedMm<'_>,
    visit: &mut Visit,
    batch: &mut KVec<Candidate>,
    room: usize,
    sieve: &mut Sieve<'_, '_>,
) -> Left {
    let from_start = visit.address == 0;
    let mut any_advised = false;
    visit.failed_locks = 0;
    for vma in locked.vmas_from(visit.address) {
        let range = vma.range();
        if !sieve.enters_vma() {
            visit.address = visit.address.max(range.start);
            return Left::More;
        }
        let Some(vma) = AdvisedVma::new(vma) else {
            continue;
        };
        any_advised = true;
        let Some(vma) = vma.populated() else {
            continue;
        };
        let rest = range.start.max(visit.address)..range.end;
        let walked = collect_candidates(&vma, rest, sieve.nodes(), room, batch, sieve);
        visit.address = walked.resume;
        if walked.is_cut_short {
            return Left::More;
        }
    }
    if from_start && !any_advised {
        // The whole address space was seen under this one lock, which whoever gives advice holds for
        // writing: it will be registered anew. Those who adopt address spaces when the module is
        // loaded hold it for reading, but are done before the first scan.
        ksm.slots.discard(&visit.slot);
        race_delay::pause(RaceWindow::Unregistered);
        clear_mergeable_flag(visit.slot.mm());
        return Left::NoAdvice;
    }
    Left::Nothing
}
