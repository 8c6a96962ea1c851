// SPDX-License-Identifier: GPL-2.0

//! The scan: a walk over the registered address spaces, their advised vmas, and nested in it their
//! lists of items.
//!
//! The unit of work is a batch of candidates found under one mmap lock, which [`crate::batch`] works
//! off: `next batch -> checksum -> look up -> merge`. The cursor stays between calls, so that a scan
//! is done in small steps.

#![deny(unsafe_code)]

use crate::{
    advisor,
    area::RecentAreas,
    batch::Sought,
    checksum::Keys,
    control::Ksm,
    kthread::{
        self,
        Current, //
    },
    mm::{
        address_space::{
            clear_mergeable_flag,
            user_of,
            ReadLockedMm, //
        },
        folio_batch::FolioBatch,
        lru,
        vma::MergeableVma,
        walk::{
            collect_candidates,
            Candidate,
            Limits,
            Walked, //
        }, //
    },
    module_hold::ModuleHold,
    partition::Partitions,
    pool::Pool,
    rmap_item::{
        ListCursor,
        Pass,
        RmapItem,
        TrackedMm, //
    },
    sieve::{
        Lists,
        Sieve, //
    },
    slots::{
        MmSlot,
        Which, //
    },
    stable_node::StableNode,
    table::{
        Handle,
        Table, //
    },
    trace,
    unstable_node::UnstableNode,
    window::{
        self,
        Window, //
    }, //
};
use core::ops::Range;
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

/// Candidates in a batch: what one mmap lock and page-table walk is good for.
const BATCH: usize = 128;

/// Pages that a walk meets under one mmap lock, most of which it passes over.
const PAGES_IN_WALK: usize = 1024;

/// Full scans that an unstable tree is good for.
///
/// A page that has not changed stays where it is, and costs no look-up. But two equal pages of which
/// one was something else for a moment, when the other looked for it, stand there side by side, and
/// meet when both look anew.
const UNSTABLE_SCANS: u32 = 8;

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
    /// The place in the list of items, if there is a list.
    cursor: Option<ListCursor>,
    /// The address to go on from.
    address: usize,
}

/// What a batch leaves to be done in its address space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// There may be further pages.
    More,
    /// The rest of the address space was seen.
    Nothing,
    /// None of it is advised, and it is not registered any more.
    NoAdvice,
}

/// What a walk has found.
struct Found {
    left: Left,
    /// Merged pages that needed no attention.
    merged: usize,
}

/// All that only `ksmd`, or who stands in for it, may touch; it lies in the scan mutex.
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
    /// Full scans that have begun since the unstable trees were forgotten.
    unstable_age: u32,
    pub(crate) keys: Keys,
    /// The checksum of a page of zeros.
    pub(crate) zero_checksum: u32,
    pub(crate) advice: advisor::History,
    /// When all this began.
    epoch: Instant<Monotonic>,
    /// Milliseconds from then to when this batch asked for it first, round and round.
    now: Option<u32>,
    stage: Stage,
    batch: KVec<Candidate>,
    pub(crate) sought: KVec<Sought>,
    /// Whether the scan has met pages that may wait in a CPU's LRU batch: new ones, and those that
    /// would not merge. While they do, they have one reference too many to be merged.
    pub(crate) drain_wanted: bool,
    /// Pages that were replaced, and that nothing but a reference keeps from being freed.
    pub(crate) outgoing: FolioBatch,
    /// Has room for the one page that another is compared with.
    pub(crate) probe: KVec<Candidate>,
}

impl Scanner {
    pub(crate) fn new(seed: u64) -> Result<Self> {
        let keys = Keys::new(seed);
        let zero_checksum = keys.checksum_of_zeros();
        Ok(Self {
            items: Pool::new(),
            unstable_nodes: Table::new(),
            mms: Pool::new(),
            nodes: Pool::new(),
            module_hold: None,
            partitions: Partitions::new(1)?,
            areas: RecentAreas::new(),
            pass: Pass::default(),
            unstable_age: 0,
            keys,
            zero_checksum,
            advice: advisor::History::default(),
            epoch: Instant::now(),
            now: None,
            stage: Stage::Idle,
            batch: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            sought: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            drain_wanted: false,
            outgoing: FolioBatch::new(),
            probe: KVec::with_capacity(1, GFP_KERNEL)?,
        })
    }

    /// Scans up to `pages` pages, or to the end of the full scan.
    pub(crate) fn scan(&mut self, ksm: &Ksm, thread: &Current, pages: usize) {
        let mut left = pages;
        while left > 0 && !thread.should_pause() {
            let Some(visit) = self.current_visit(ksm) else {
                return;
            };
            left -= self.scan_batch(ksm, visit, left).min(left);
            kthread::cond_resched();
        }
    }

    /// Goes back to before the first slot, as if nothing had been scanned.
    pub(crate) fn rewind(&mut self) {
        self.stage = Stage::Idle;
        self.areas.clear();
        self.forget_unstable(0);
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
        self.renew_unstable(ksm);
        self.partitions.fit_stable(&mut self.nodes);
        self.pass = self.pass.next();
    }

    /// Forgets the unstable trees if they have grown old, or do not suit the number of items.
    fn renew_unstable(&mut self, ksm: &Ksm) {
        let merged = ksm.stats.pages_shared.get() + ksm.stats.pages_sharing.get();
        let waiting = self.items.len().saturating_sub(merged);
        if self.unstable_age == UNSTABLE_SCANS || !self.partitions.unstable_suits(waiting) {
            self.forget_unstable(waiting);
        }
        self.unstable_age += 1;
    }

    /// Empties the unstable trees, and has them suit so many items.
    fn forget_unstable(&mut self, waiting: usize) {
        self.partitions.forget_unstable(&mut self.items, waiting);
        self.unstable_age = 0;
    }

    fn end_full_scan(&mut self, ksm: &Ksm) {
        self.areas.clear();
        self.advice.end(&ksm.tunables.advisor, &ksm.tunables);
        trace::stop_scan(ksm.stats.full_scans.get(), self.items.len());
        ksm.stats.full_scans.add(1);
    }

    /// Returns how many pages were scanned.
    fn scan_batch(&mut self, ksm: &Ksm, mut visit: Visit, limit: usize) -> usize {
        let Some(mm) = user_of(visit.slot.mm()) else {
            self.end_visit(ksm, visit);
            return 0;
        };
        self.now = None;
        let mut batch = core::mem::take(&mut self.batch);
        let found = self.fill_batch(ksm, &mm, &mut visit, limit, &mut batch);
        let scanned = found.merged + batch.len();
        window::pause(Window::Gathered);
        self.work_off(ksm, &mm, &mut visit, &mut batch);
        self.batch = batch;
        ksm.stats.pages_scanned.add(scanned);
        match found.left {
            Left::More => self.stage = Stage::Inside(visit),
            Left::Nothing => self.end_visit(ksm, visit),
            Left::NoAdvice => {
                if let Some(cursor) = &mut visit.cursor {
                    self.collect_rest(ksm, cursor);
                }
                self.end_visit(ksm, visit);
            }
        }
        scanned
    }

    /// Gathers candidates from `visit.address` on, but scans no more than `limit` pages.
    fn fill_batch(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        visit: &mut Visit,
        limit: usize,
        batch: &mut KVec<Candidate>,
    ) -> Found {
        let by_node = self.partitions.by_node();
        let lists = Lists {
            mms: &self.mms,
            items: &mut self.items,
            unstable_nodes: &mut self.unstable_nodes,
            nodes: &self.nodes,
            partitions: &mut self.partitions,
        };
        let mut sieve = visit
            .cursor
            .map(|cursor| Sieve::new(ksm, lists, self.pass, by_node, cursor));
        let mut limits = Limits {
            candidates: limit.min(BATCH),
            pages: limit.min(PAGES_IN_WALK),
        };
        let left = gather(ksm, mm, visit, &mut limits, |vma, range, limits| {
            collect_candidates(vma, range, &self.nodes, limits, batch, |address, page| {
                sieve
                    .as_mut()
                    .is_none_or(|sieve| sieve.keeps(address, page))
            })
        });
        let merged = match sieve.map(Sieve::finish) {
            Some((cursor, merged)) => {
                visit.cursor = Some(cursor);
                merged
            }
            None => 0,
        };
        Found { left, merged }
    }

    /// Collects the items behind the cursor, and goes on to the next slot.
    fn end_visit(&mut self, ksm: &Ksm, mut visit: Visit) {
        if let Some(cursor) = &mut visit.cursor {
            while let Some(item) = cursor.next(&self.mms, &self.items) {
                self.pass_or_collect(ksm, cursor, item);
                kthread::cond_resched();
            }
        }
        self.leave_slot(ksm, &visit.slot);
        self.stage = Stage::Between(visit.slot.key());
    }

    /// The item for `address`; collects those that stand before it.
    pub(crate) fn item_at(
        &mut self,
        ksm: &Ksm,
        visit: &mut Visit,
        address: usize,
    ) -> Option<Handle<RmapItem>> {
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

    fn new_item(
        &mut self,
        ksm: &Ksm,
        cursor: &mut ListCursor,
        address: usize,
    ) -> Option<Handle<RmapItem>> {
        debug_assert!(address % PAGE_SIZE == 0);
        let mut item = RmapItem::new(cursor.mm(), address);
        if ksm.tunables.smart_scan.is_set() {
            // This scan is the first of those that the page is to go through.
            item.is_to_be_skipped();
        }
        let item = self.items.insert(item, crate::SCAN_GFP).ok()?;
        cursor.insert(&mut self.mms, &mut self.items, item);
        self.drain_wanted = true;
        self.count_items(ksm, cursor.mm(), 1);
        Some(item)
    }
}

/// Walks advised vmas from `visit.address` on until a walk comes to its limits.
fn gather(
    ksm: &Ksm,
    mm: &MmWithUser,
    visit: &mut Visit,
    limits: &mut Limits,
    mut walk: impl FnMut(&MergeableVma<'_>, Range<usize>, Limits) -> Walked,
) -> Left {
    let from_start = visit.address == 0;
    let mut any_advised = false;
    let locked = ReadLockedMm::new(mm);
    for vma in locked.advised_from(visit.address) {
        any_advised = true;
        let range = vma.range();
        let Some(vma) = vma.populated() else {
            visit.address = range.end;
            continue;
        };
        let walked = walk(&vma, range.start.max(visit.address)..range.end, *limits);
        visit.address = walked.resume;
        limits.pages -= walked.pages;
        if walked.is_cut_short {
            return Left::More;
        }
    }
    if from_start && !any_advised {
        // The whole address space was seen under this one lock, which whoever gives advice holds for
        // writing: it will be registered anew. Those who adopt address spaces when the module is
        // loaded hold it for reading, but are done before the first scan.
        ksm.slots.remove(&visit.slot);
        window::pause(Window::Unregistered);
        clear_mergeable_flag(visit.slot.mm());
        return Left::NoAdvice;
    }
    Left::Nothing
}
