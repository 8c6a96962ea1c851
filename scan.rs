// SPDX-License-Identifier: GPL-2.0

//! The scan: a walk over the registered address spaces, their advised vmas, and nested in it their
//! lists of items.
//!
//! The unit of work is a batch of candidates found under one mmap lock, which [`crate::scan::batch`] works
//! off: `next batch -> checksum -> look up -> merge`. The cursor stays between calls, so that a scan
//! is done in small steps.

#![deny(unsafe_code)]

pub(crate) mod batch;
mod look_up;
pub(crate) mod pace;
pub(crate) mod prune;
pub(crate) mod skip_filter;
mod turns;
pub(crate) mod zero_sweep;

use crate::{
    following::{
        Desk,
        Following,
        Position, //
    },
    kernel_api::kthread,
    merging::MergeState,
    mm::{
        address_space::{
            clear_mergeable_flag,
            is_being_unmapped,
            user_of,
            ReadLockedMm, //
        },
        domain::{
            Domain,
            DomainRule, //
        },
        ksm_page::{
            trace,
            walk::{
                collect_candidates,
                Candidates, //
            }, //
        },
        lru,
        vma::AdvisedVma, //
    },
    policy::{
        advisor,
        shared::Shared, //
    },
    records::{
        registry::{
            MmSlot,
            Which, //
        },
        tracking::ITEMS_AT_ONCE,
        Records, //
    },
    rmap_item::ListCursor,
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use batch::BatchWork;
use core::ops::Range;
use kernel::{
    mm::MmWithUser,
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};
use look_up::UnmergedPage;
use pace::{
    Step,
    Work, //
};
use prune::Pruning;
use skip_filter::{
    SkipFilter,
    Wanted, //
};
use zero_sweep::ZeroSweep;

/// Candidates in a batch: enough to make one mmap lock and page-table walk worthwhile.
const BATCH: usize = 128;

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
    /// The addresses of the large folio that was judged last.
    judged: Range<usize>,
    /// The domain of the address space, when the last batch was gathered.
    domain: Domain,
}

impl Visit {
    fn position(&mut self) -> Position<'_> {
        Position {
            slot: &self.slot,
            cursor: &mut self.cursor,
            address: self.address,
        }
    }
}

/// Work that a batch leaves in its address space.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// There may be further pages.
    More,
    /// The rest of the address space was seen.
    Nothing,
    /// No part of it is advised, and it is not registered any more.
    NoAdvice,
    /// Its mmap lock could not be had, or its domain is being changed.
    Contended,
}

/// The state of the scan, protected by the scan mutex.
pub(crate) struct Scanner<F: Following> {
    following: F,
    records: Records,
    merge: MergeState,
    pruning: Pruning,
    advice: advisor::History,
    /// When all this began.
    epoch: Instant<Monotonic>,
    stage: Stage,
    /// Both are empty between two batches.
    batch: Candidates,
    unmerged: KVec<UnmergedPage>,
    zero_sweep: ZeroSweep,
}

impl<F: Following> Scanner<F> {
    /// `seed` makes the checksums of this load unlike those of any other.
    pub(crate) fn new(records: Records, seed: u64, following: F) -> Result<Self> {
        Ok(Self {
            following,
            records,
            merge: MergeState::new(seed)?,
            pruning: Pruning::default(),
            advice: advisor::History::default(),
            epoch: Instant::now(),
            stage: Stage::Idle,
            batch: Candidates::with_capacity(BATCH)?,
            unmerged: KVec::with_capacity(BATCH, GFP_KERNEL)?,
            zero_sweep: ZeroSweep::with_capacity(BATCH)?,
        })
    }

    /// The records, for callers that need no scan.
    pub(crate) fn records(&mut self) -> &mut Records {
        &mut self.records
    }

    /// The advisor's measurements.
    pub(crate) fn advice(&mut self) -> &mut advisor::History {
        &mut self.advice
    }

    /// Does one step of the scan, which ends at the end of the full scan at the latest.
    pub(crate) fn scan(&mut self, shared: &Shared, step: &mut Step<'_>) {
        while step.has_left() {
            self.collect_discarded(shared, step);
            let Some(mut visit) = self.current_visit(shared) else {
                return;
            };
            let met = self.following.catch_up(&mut self.records, visit.position());
            step.charge(Work::Small, met);
            self.scan_batch(shared, visit, step);
            kthread::cond_resched();
            // Not before a batch is done: the scan goes on, however often somebody interrupts it.
            if !step.goes_on() {
                return;
            }
        }
    }

    /// Changes which domains count to one of the rules that tell fewer apart.
    pub(crate) fn bring_domains_together(&mut self, rule: DomainRule) {
        self.records.bring_together(rule, self.merge.keys());
    }

    /// Frees the next items of the address space of `slot`, whose domain is being changed; returns
    /// whether those were all.
    pub(crate) fn forget_some(&mut self, shared: &Shared, slot: &Arc<MmSlot>) -> bool {
        self.break_off_visit(slot);
        let is_done = self.records.collect_some(slot) < ITEMS_AT_ONCE;
        if is_done {
            shared.registry.release(slot);
        }
        is_done
    }

    /// Goes back to before the first slot, as if nothing had been scanned.
    pub(crate) fn rewind(&mut self) {
        self.stage = Stage::Idle;
        self.following.leave_all();
        self.records.forget_recent_vmas();
    }

    /// The visit to go on with, or `None` at the end of a full scan.
    fn current_visit(&mut self, shared: &Shared) -> Option<Visit> {
        let after = match core::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Inside(visit) => return Some(visit),
            Stage::Between(key) => Some(key),
            Stage::Idle if shared.registry.is_empty() => return None,
            Stage::Idle => {
                self.begin_full_scan(shared);
                None
            }
        };
        self.batch.begin_visit();
        match shared.registry.next_tracked(after, Which::BeforeScan) {
            Some(slot) => {
                self.following.begin_visit(&slot);
                Some(Visit {
                    cursor: self.records.tracked(&slot).map(ListCursor::front),
                    slot,
                    address: 0,
                    failed_locks: 0,
                    judged: 0..0,
                    domain: Domain::COMMON,
                })
            }
            None => {
                self.end_full_scan(shared);
                None
            }
        }
    }

    fn begin_full_scan(&mut self, shared: &Shared) {
        self.advice.begin(&shared.tunables.advisor);
        trace::start_scan(shared.stats.full_scans.get(), shared.counters.rmap_items());
        shared.registry.begin_scan();
        if self.merge.take_drain_wanted() {
            lru::drain_all();
        }
        self.zero_sweep.begin_scan();
        self.records.begin_scan();
    }

    fn end_full_scan(&mut self, shared: &Shared) {
        self.records.forget_recent_vmas();
        self.advice.end(&shared.tunables.advisor, &shared.tunables);
        trace::stop_scan(shared.stats.full_scans.get(), shared.counters.rmap_items());
        shared.stats.full_scans.add(1);
    }

    /// Goes on with `visit` by one batch, after all items below its address are settled.
    fn scan_batch(&mut self, shared: &Shared, mut visit: Visit, step: &mut Step<'_>) {
        if !self.settle_visit(&mut visit, step) {
            self.stage = Stage::Inside(visit);
        } else if visit.address == END {
            self.leave_slot(shared, &visit.slot);
            self.stage = Stage::Between(visit.slot.key());
        } else {
            self.stage = self.walk_batch(shared, visit, step);
        }
    }

    /// Ends the visit to the address space of `slot`, which is not tracked any more if there are no
    /// items.
    fn leave_slot(&mut self, shared: &Shared, slot: &Arc<MmSlot>) {
        if self.records.end_tracking(slot) {
            self.following.leave(slot);
            shared.registry.release(slot);
        }
    }

    /// Scans a batch of pages from `visit.address` on; returns where the scan is then.
    fn walk_batch(&mut self, shared: &Shared, mut visit: Visit, step: &mut Step<'_>) -> Stage {
        let Some(mm) = user_of(visit.slot.mm()) else {
            // Its exit discards the slot, and so the items.
            return Stage::Between(visit.slot.key());
        };
        let wanted = match shared.tunables.only_zero_pages.is_set() {
            true => Wanted::OnlyZeros,
            false => Wanted::All,
        };
        let left = self.fill_batch(shared, &mm, &mut visit, (step, wanted));
        race_delay::pause(RaceWindow::Gathered);
        match wanted {
            Wanted::All => self.work_off(shared, &mm, &mut visit),
            Wanted::OnlyZeros => self.sweep_zeros(shared, &mm),
        }
        self.prune(shared);
        match left {
            Left::More => {
                visit.failed_locks = 0;
                Stage::Inside(visit)
            }
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

    /// Gathers candidates from `visit.address` on, as far as `step` allows, of an address space that is followed. Where
    /// there are neither pages to be looked at nor items, nobody needs to tell of changes.
    fn fill_batch(
        &mut self,
        shared: &Shared,
        mm: &MmWithUser,
        visit: &mut Visit,
        (step, wanted): (&mut Step<'_>, Wanted),
    ) -> Left {
        let begin = (visit.address, visit.cursor);
        let left = self.gather_some(shared, mm, visit, (step, wanted));
        let nothing_is_known = visit.cursor.is_none() && self.batch.is_empty();
        if nothing_is_known || self.following.follows(&visit.slot) {
            return left;
        }
        // These may have changed before anybody told of it.
        self.batch.clear();
        (visit.address, visit.cursor) = begin;
        match self.following.follow(&visit.slot, mm) {
            Ok(()) => Left::More,
            Err(_) => Left::Contended,
        }
    }

    /// Gathers candidates, whether the address space is followed or not.
    fn gather_some(
        &mut self,
        shared: &Shared,
        mm: &MmWithUser,
        visit: &mut Visit,
        (step, wanted): (&mut Step<'_>, Wanted),
    ) -> Left {
        let room = step.pages().min(BATCH);
        let Some(locked) = ReadLockedMm::try_new(mm, self.merge.begin_batch()) else {
            return Left::Contended;
        };
        let Some(domain) = locked.domain(self.records.domain_rule()) else {
            return Left::Contended;
        };
        visit.domain = domain;
        self.merge.enter_domain(domain);
        let records = self.records.walk_view();
        let mut filter = SkipFilter::new(shared, records, visit.cursor, (step, wanted));
        let left = gather(shared, &locked, visit, &mut self.batch, room, &mut filter);
        let (cursor, merged) = filter.finish();
        visit.cursor = cursor;
        shared.stats.pages_scanned.add(merged);
        left
    }

    /// Looks at the candidates of the batch.
    fn work_off(&mut self, shared: &Shared, mm: &MmWithUser, visit: &mut Visit) {
        self.following.begin_batch(&visit.slot, visit.address);
        let mut work = BatchWork {
            shared,
            records: &mut self.records,
            merge: &mut self.merge,
            mm,
            domain: visit.domain,
            judged: &mut visit.judged,
        };
        work.work_off(
            &visit.slot,
            &mut visit.cursor,
            &mut self.batch,
            &mut self.unmerged,
        );
    }

    /// Looks for zeros in the candidates of the batch.
    fn sweep_zeros(&mut self, shared: &Shared, mm: &MmWithUser) {
        let (records, merge) = (&mut self.records, &mut self.merge);
        self.zero_sweep
            .work_off(shared, records, merge, mm, &mut self.batch);
    }

    fn prune(&mut self, shared: &Shared) {
        let epoch = self.epoch;
        let now = || epoch.elapsed().as_millis() as u32;
        self.pruning.prune(shared, &mut self.records, now);
    }

    /// Goes past the items below `visit.address`, and frees those that this scan has met no page for;
    /// returns whether that is done.
    fn settle_visit(&mut self, visit: &mut Visit, step: &mut Step<'_>) -> bool {
        if visit.cursor.is_none() {
            return true;
        }
        let (following, records) = (&mut self.following, &mut self.records);
        step.repeat(ITEMS_AT_ONCE, || {
            following.settle_some(records, visit.position())
        })
    }

    /// Frees the items of slots that are discarded, as far as `step` allows.
    fn collect_discarded(&mut self, shared: &Shared, step: &mut Step<'_>) {
        let mut last = None;
        while let Some((number, slot)) = shared.registry.next_discarded(last) {
            step.charge(Work::Small, 1);
            if !step.goes_on() {
                return;
            }
            last = Some(number);
            self.break_off_visit(&slot);
            // As long as an entry may map a KSM page, its mapping has to be listed.
            let records = &mut self.records;
            if !is_being_unmapped(slot.mm())
                && step.repeat(ITEMS_AT_ONCE, || records.collect_some(&slot))
            {
                shared.registry.forget_discarded(number);
            }
        }
    }

    /// Has what is told of changes come to `desk`.
    pub(crate) fn open(&mut self, desk: Arc<dyn Desk>) {
        self.following.open(desk);
    }

    /// Has nobody tell of changes any more.
    pub(crate) fn close(&mut self) {
        self.following.close();
    }

    /// Looks at the change of a range of the address space of `slot`; the caller may hold locks of it.
    pub(crate) fn catch_up_at_once(&mut self, slot: &MmSlot, range: &Range<usize>) {
        let position = match &mut self.stage {
            Stage::Inside(visit) => Some(visit.position()),
            Stage::Idle | Stage::Between(_) => None,
        };
        self.following
            .catch_up_at_once(&mut self.records, (slot, range), position);
    }

    /// Ends the visit to the address space of `slot`, if there is one: its items are about to go.
    fn break_off_visit(&mut self, slot: &Arc<MmSlot>) {
        if matches!(&self.stage, Stage::Inside(visit) if Arc::ptr_eq(&visit.slot, slot)) {
            self.stage = Stage::Between(slot.key());
        }
        self.following.leave(slot);
    }
}

/// Walks the advised vmas of `locked` from `visit.address` on, until `room` candidates are in `batch`
/// or `filter` ends the walk.
fn gather(
    shared: &Shared,
    locked: &ReadLockedMm<'_>,
    visit: &mut Visit,
    batch: &mut Candidates,
    room: usize,
    filter: &mut SkipFilter<'_, '_>,
) -> Left {
    let from_start = visit.address == 0;
    let mut any_advised = false;
    for vma in locked.vmas_from(visit.address) {
        let range = vma.range();
        if !filter.enters_vma() {
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
        let walked = collect_candidates(&vma, rest, filter.nodes(), room, batch, filter);
        visit.address = walked.resume;
        if walked.is_cut_short {
            return Left::More;
        }
    }
    if from_start && !any_advised {
        // The whole address space was seen under this one lock, and a task that gives advice holds it
        // for writing: it will be registered anew. The adoption of address spaces, when the module is
        // loaded, holds it for reading, but is done before the first scan.
        shared.registry.discard(&visit.slot);
        race_delay::pause(RaceWindow::Unregistered);
        clear_mergeable_flag(visit.slot.mm());
        return Left::NoAdvice;
    }
    Left::Nothing
}
