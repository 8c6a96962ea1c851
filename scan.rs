// SPDX-License-Identifier: GPL-2.0

//! The scan: a walk over the registered address spaces, their advised vmas, and nested in it their
//! lists of items.
//!
//! The unit of work is a batch of candidates found under one mmap lock: `next batch -> checksum ->
//! look up -> merge`. The cursor stays between calls, so that a scan is done in small steps.

#![deny(unsafe_code)]

use crate::{
    advisor,
    checksum::Keys,
    control::Ksm,
    kthread,
    mm::{
        address_space::{
            user_of,
            ReadLockedMm,
            UserMm, //
        },
        folio::PinnedPage,
        lru,
        walk::{
            collect_candidates,
            Candidate,
            Met, //
        }, //
    },
    partition::Partitions,
    pool::{
        Handle,
        Pool, //
    },
    rmap_item::{
        ListCursor,
        Pass,
        Place,
        RmapItem,
        TrackedMm, //
    },
    slots::{
        MmSlot,
        Which, //
    },
    stable_node::StableNode,
    trace, //
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

/// Candidates in a batch: what one mmap lock and page-table walk is good for.
const BATCH: usize = 64;

/// Where the scan is.
enum Stage {
    /// Before the first slot.
    Idle,
    /// Between the slot with this key and the next.
    Between(usize),
    Inside(Visit),
}

/// The visit to one address space.
struct Visit {
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

/// Whether a candidate counts as scanned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attention {
    Given,
    /// The smart scan has passed it over.
    Saved,
}

/// All that only `ksmd`, or who stands in for it, may touch; it lies in the scan mutex.
pub(crate) struct Scanner {
    pub(crate) items: Pool<RmapItem>,
    pub(crate) mms: Pool<TrackedMm>,
    pub(crate) nodes: Pool<StableNode>,
    pub(crate) partitions: Partitions,
    pub(crate) pass: Pass,
    keys: Keys,
    /// The checksum of a page of zeros.
    pub(crate) zero_checksum: u32,
    pub(crate) advice: advisor::History,
    /// When all this began.
    epoch: Instant<Monotonic>,
    stage: Stage,
    batch: KVec<Candidate>,
    /// Has room for the one page that another is compared with.
    pub(crate) probe: KVec<Candidate>,
}

impl Scanner {
    pub(crate) fn new(seed: u64) -> Result<Self> {
        let keys = Keys::new(seed);
        let zero_checksum = keys.checksum_of_zeros();
        Ok(Self {
            items: Pool::new(),
            mms: Pool::new(),
            nodes: Pool::new(),
            partitions: Partitions::new(1)?,
            pass: Pass::default(),
            keys,
            zero_checksum,
            advice: advisor::History::default(),
            epoch: Instant::now(),
            stage: Stage::Idle,
            batch: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            probe: KVec::with_capacity(1, GFP_KERNEL)?,
        })
    }

    /// Scans up to `pages` pages, or to the end of the full scan.
    pub(crate) fn scan(&mut self, ksm: &Ksm, pages: usize) {
        let mut left = pages;
        while left > 0 && !kthread::should_pause() {
            let Some(visit) = self.current_visit(ksm) else {
                return;
            };
            left -= self.scan_batch(ksm, visit, left.min(BATCH));
            kthread::cond_resched();
        }
    }

    /// Goes back to before the first slot, as if nothing had been scanned.
    pub(crate) fn rewind(&mut self, ksm: &Ksm) {
        self.stage = Stage::Idle;
        self.partitions.forget_unstable();
        // Without a full scan that meets them all, items do not find out by its number.
        self.items.for_each_mut(RmapItem::leave_forgotten_tree);
        ksm.stats.pages_unshared.set(0);
    }

    /// Milliseconds since the module was loaded, round and round.
    pub(crate) fn now(&self) -> u32 {
        self.epoch.elapsed().as_millis() as u32
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
        // Pages that wait in a CPU's LRU batch have one reference too many to be merged.
        lru::drain_all();
        self.partitions.forget_unstable();
        self.pass = self.pass.next();
    }

    fn end_full_scan(&mut self, ksm: &Ksm) {
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
        let mut batch = core::mem::take(&mut self.batch);
        let left = self.fill_batch(ksm, &mm, &mut visit, limit, &mut batch);
        let mut scanned = 0;
        for candidate in batch.drain_all() {
            if self.consider(ksm, &mm, &mut visit, candidate) == Attention::Given {
                scanned += 1;
            }
            kthread::cond_resched();
        }
        self.batch = batch;
        ksm.stats.pages_scanned.add(scanned);
        match left {
            Left::More => self.stage = Stage::Inside(visit),
            Left::Nothing | Left::NoAdvice => self.end_visit(ksm, visit),
        }
        scanned
    }

    /// Gathers up to `limit` candidates from `visit.address` on.
    fn fill_batch(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        visit: &mut Visit,
        limit: usize,
        batch: &mut KVec<Candidate>,
    ) -> Left {
        let from_start = visit.address == 0;
        let mut any_advised = false;
        let locked = ReadLockedMm::new(mm);
        while let Some(vma) = locked.next_advised(visit.address) {
            any_advised = true;
            let range = vma.range();
            let start = range.start.max(visit.address);
            visit.address = match vma.populated() {
                Some(vma) => collect_candidates(&vma, start..range.end, &self.nodes, limit, batch),
                None => range.end,
            };
            if batch.len() == limit {
                return Left::More;
            }
            // A large folio ends a walk early; the rest waits for the next one.
            if visit.address < range.end {
                return Left::More;
            }
        }
        if from_start && !any_advised {
            // The whole address space was seen under this one lock, which whoever gives advice
            // holds for writing: it will be registered anew.
            ksm.slots.remove(&visit.slot);
            locked.clear_mergeable_flag();
            return Left::NoAdvice;
        }
        Left::Nothing
    }

    /// Collects the items behind the cursor, and goes on to the next slot.
    fn end_visit(&mut self, ksm: &Ksm, mut visit: Visit) {
        if let Some(cursor) = &mut visit.cursor {
            self.collect_rest(ksm, cursor);
        }
        self.leave_slot(ksm, &visit.slot);
        self.stage = Stage::Between(visit.slot.key());
    }

    /// Looks at one page.
    fn consider(
        &mut self,
        ksm: &Ksm,
        mm: &UserMm,
        visit: &mut Visit,
        candidate: Candidate,
    ) -> Attention {
        let Some(item) = self.item_at(ksm, visit, candidate.address) else {
            return Attention::Given;
        };
        match candidate.page {
            Met::Ksm(node) => self.consider_ksm(ksm, mm, item, node),
            Met::Anonymous(_)
                if ksm.tunables.smart_scan.is_set() && self.items[item].is_to_be_skipped() =>
            {
                self.leave_tree(ksm, item);
                ksm.stats.pages_skipped.add(1);
                return Attention::Saved;
            }
            Met::Anonymous(page) => self.consider_anonymous(ksm, mm, item, page),
        }
        Attention::Given
    }

    /// A KSM page: ours already, or inherited by a fork.
    ///
    /// The batch holds no reference to it, so `node` may be gone, or another, unless the item is
    /// one of its mappings.
    fn consider_ksm(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        node: Handle<StableNode>,
    ) {
        if matches!(self.items[item].place(), Place::Stable(known, _) if known == node) {
            self.replace_in_partition(ksm, node);
            return;
        }
        self.leave_tree(ksm, item);
        self.adopt_fork(ksm, mm, item);
    }

    fn consider_anonymous(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        page: PinnedPage,
    ) {
        self.leave_tree(ksm, item);
        let checksum = page.with_words(|words| self.keys.checksum(words));
        if !self.items[item].note_checksum(checksum) {
            return;
        }
        let merged = self.merge_with_zero_page(ksm, mm, item, &page)
            || self.merge_with_stable(ksm, mm, item, &page);
        if !merged {
            self.meet_in_unstable(ksm, mm, item, &page);
        }
    }

    /// The item for `address`; collects those that stand before it.
    fn item_at(
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
            self.collect_next(ksm, cursor, item);
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
        let item = RmapItem::new(cursor.mm(), address);
        let item = self.items.insert(item, crate::SCAN_GFP).ok()?;
        cursor.insert(&mut self.mms, &mut self.items, item);
        self.count_item(ksm, cursor.mm(), 1);
        Some(item)
    }
}
