// SPDX-License-Identifier: GPL-2.0

//! What the scanner, the hooks and sysfs share, and the thread that scans.

#![deny(unsafe_code)]

use crate::{
    following::{
        Desk,
        Following, //
    },
    kernel_api::kthread::{
        cond_resched,
        Body,
        Current,
        Limit,
        WaitQueue, //
    },
    merging::unmerge::{
        collect_all_slots,
        part_domains,
        part_mm,
        remove_leftovers,
        unmerge_all,
        Leftovers, //
    },
    mm::{
        address_space::{
            clear_mergeable_flag,
            zero_pages, //
        },
        domain::DomainRule,
        oom, //
    },
    policy::{
        shared::Shared,
        tunables::{
            Tunable,
            DEFAULT_MAX_PAGE_SHARING,
            DEFAULT_PAGES_TO_SCAN,
            U32_MAX, //
        }, //
    },
    records::{
        census::Census,
        registry::MmSlot,
        tenants::{
            Look,
            Tenants, //
        },
        Records, //
    },
    rmap_item::BYTES_PER_PAGE,
    scan::{
        pace::{
            Step,
            Waiters, //
        },
        Scanner, //
    }, //
};
use core::ops::Range;
use kernel::{
    mm::{
        Mm,
        MmWithUser, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    static_lock_class,
    sync::{
        Arc,
        Mutex,
        MutexGuard, //
    },
    time::{
        Delta,
        Instant,
        Monotonic, //
    },
    ThisModule, //
};

#[cfg(CONFIG_NUMA)]
use crate::mm::folio::node_ids;

#[cfg(CONFIG_MEMORY_HOTREMOVE)]
use crate::mm::hotplug::{
    MemoryEvent,
    MemoryListener,
    OfflineRange, //
};

/// How long to wait before looking again whether leftovers of `run` = 2 can be removed: so many
/// times as long as the last look has taken, but that many milliseconds at least and at most.
const LEFTOVERS_PAUSE_FACTOR: i64 = 100;
const LEFTOVERS_PAUSE_MIN: i64 = 1_000;
const LEFTOVERS_PAUSE_MAX: i64 = 60_000;

/// What `run` may be set to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Merged pages stay merged; nothing else happens.
    Stop = 0,
    Merge = 1,
    /// All is undone.
    Unmerge = 2,
}

impl TryFrom<usize> for Run {
    type Error = Error;

    fn try_from(value: usize) -> Result<Self> {
        Ok(match value {
            0 => Run::Stop,
            1 => Run::Merge,
            2 => Run::Unmerge,
            _ => return Err(EINVAL),
        })
    }
}

/// See the [module's description](self).
#[pin_data]
pub(crate) struct Ksm<F: Following> {
    #[pin]
    scanner: Mutex<Scanner<F>>,
    /// Those who wait for the scan mutex, besides `ksmd`.
    waiters: Waiters,
    #[pin]
    pub(crate) shared: Shared,
    run: Tunable,
    /// What was left when all was undone: a [`Leftovers`].
    leftovers: Tunable,
    /// Set while memory is going offline.
    offlining: Tunable,
    /// Where everybody waits for that to end.
    #[pin]
    online: WaitQueue,
    /// Where the thread waits for something to do.
    #[pin]
    work: WaitQueue,
    /// Where the thread pauses between two steps of a scan.
    #[pin]
    pause: WaitQueue,
}

impl<F: Following> Ksm<F> {
    /// `seed` makes the checksums of this load unlike those of any other.
    pub(crate) fn new(module: &'static ThisModule, seed: u64, following: F) -> Result<Arc<Self>> {
        let records = Records::new(module, DEFAULT_MAX_PAGE_SHARING)?;
        let counters = records.counters();
        let scanner = Scanner::new(records, seed, following)?;
        let ksm = Arc::pin_init(
            pin_init!(Self {
                scanner <- new_mutex!(scanner, "ksm_rs_scan"),
                waiters: Waiters::new(),
                shared <- Shared::new(counters),
                run: Tunable::new(Run::Stop as usize),
                leftovers: Tunable::new(Leftovers::None as usize),
                offlining: Tunable::new(0),
                online <- WaitQueue::new(c"ksm_rs_online", static_lock_class!()),
                work <- WaitQueue::new(c"ksm_rs_work", static_lock_class!()),
                pause <- WaitQueue::new(c"ksm_rs_pause", static_lock_class!()),
            }),
            GFP_KERNEL,
        )?;
        ksm.lock_scanner().open(ksm.clone());
        Ok(ksm)
    }

    /// What `run` was last set to.
    pub(crate) fn run(&self) -> usize {
        self.run.get()
    }

    /// Whether everything is being, or has been, undone.
    pub(crate) fn is_unmerging(&self) -> bool {
        self.run() == Run::Unmerge as usize
    }

    /// Starts or stops the scan, or undoes all that it has done; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM` or `ERESTARTSYS` when not everything could be undone; `run` is 0 then.
    pub(crate) fn set_run(&self, run: Run) -> Result {
        let mut scanner = self.lock_scanner();
        self.run.set(run as usize);
        if run == Run::Unmerge {
            let _oom = oom::Origin::new();
            scanner.rewind();
            let result = unmerge_all(&self.shared, scanner.records());
            let left = result.inspect_err(|_| {
                self.run.set(Run::Stop as usize);
            })?;
            self.leftovers.set(left as usize);
        }
        drop(scanner);
        self.work.wake_all();
        self.pause.wake_all();
        Ok(())
    }

    /// Whether all has been undone but for pages that somebody still had.
    fn has_leftovers(&self) -> bool {
        self.leftovers.is_set() && self.is_unmerging()
    }

    /// Removes the nodes whose pages nobody has any more, after unmerging what can be by now;
    /// returns how long that has taken.
    fn collect_leftovers(&self) -> Delta {
        let mut scanner = self.lock_scanner();
        let begin = Instant::<Monotonic>::now();
        if self.has_leftovers() {
            let guarded = self.leftovers.get() == Leftovers::Guarded as usize;
            let left = remove_leftovers(&self.shared, scanner.records(), guarded);
            self.leftovers.set(left as usize);
        }
        begin.elapsed()
    }

    /// Looks after leftovers until there are none, or there is something else to do.
    fn wait_for_leftovers(&self, thread: &Current) {
        let mut pause = LEFTOVERS_PAUSE_MIN;
        while self.has_leftovers() && !thread.should_stop() {
            self.work
                .wait(thread, Limit::Millis(pause as u32), || self.should_scan());
            let taken = self.collect_leftovers().as_millis();
            pause = taken
                .saturating_mul(LEFTOVERS_PAUSE_FACTOR)
                .clamp(LEFTOVERS_PAUSE_MIN, LEFTOVERS_PAUSE_MAX);
        }
    }

    /// Sets the pause between two steps; a pause that goes on ends.
    pub(crate) fn set_sleep_millisecs(&self, millisecs: usize) {
        self.shared.tunables.sleep_millisecs.set(millisecs);
        self.pause.wake_all();
    }

    /// Sets how many mappings a KSM page may have.
    ///
    /// # Errors
    ///
    /// `EBUSY` while there are KSM pages.
    pub(crate) fn set_max_page_sharing(&self, limit: usize) -> Result {
        if self.shared.tunables.max_page_sharing.get() == limit {
            return Ok(());
        }
        let mut scanner = self.lock_scanner();
        scanner.records().set_max_page_sharing(limit)?;
        self.shared.tunables.max_page_sharing.set(limit);
        Ok(())
    }

    /// Sets whether pages of different NUMA nodes may be merged.
    ///
    /// # Errors
    ///
    /// `EBUSY` while there are KSM pages; `ENOMEM` without memory for the trees.
    #[cfg(CONFIG_NUMA)]
    pub(crate) fn set_merge_across_nodes(&self, across: bool) -> Result {
        let mut scanner = self.lock_scanner();
        let tunable = &self.shared.tunables.merge_across_nodes;
        if tunable.is_set() == across {
            return Ok(());
        }
        let partitions = if across { 1 } else { node_ids() };
        scanner.records().set_partitions(partitions)?;
        scanner.rewind();
        tunable.set(usize::from(across));
        Ok(())
    }

    /// Sets `pages_to_scan`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if that is the advisor's to do.
    pub(crate) fn set_pages_to_scan(&self, pages: usize) -> Result {
        if self.shared.tunables.advisor.enabled.is_set() {
            return Err(EINVAL);
        }
        self.shared.tunables.pages_to_scan.set(pages);
        Ok(())
    }

    /// Lets the advisor set `pages_to_scan`, or no longer; sleeps, as it waits for the scan mutex.
    pub(crate) fn set_advisor(&self, enabled: bool) {
        let mut scanner = self.lock_scanner();
        let advisor = &self.shared.tunables.advisor;
        if advisor.enabled.is_set() == enabled {
            return;
        }
        advisor.enabled.set(usize::from(enabled));
        scanner.advice().forget();
        self.shared.tunables.pages_to_scan.set(match enabled {
            // 32 bits of it, as user space reads them.
            true => advisor.min_pages_to_scan.get() & U32_MAX,
            false => DEFAULT_PAGES_TO_SCAN,
        });
    }

    /// Bytes that merging saves, less those that it takes; may be negative.
    pub(crate) fn general_profit(&self) -> isize {
        let saved = zero_pages().wrapping_add_unsigned(self.shared.counters.pages_sharing());
        let taken = self.shared.counters.rmap_items() * BYTES_PER_PAGE;
        saved
            .wrapping_mul(PAGE_SIZE as isize)
            .wrapping_sub_unsigned(taken)
    }

    /// Parts all pages of `mm` from KSM pages, and forgets what is known of it: its domain is being changed,
    /// so nothing is merged meanwhile. Waits for the step of the scan that is under way; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ERESTARTSYS` and `EBUSY` as `unmerge_range()`.
    pub(crate) fn part(&self, mm: &MmWithUser) -> Result {
        // A step that is under way may not know that forks can be in different domains from now on.
        drop(self.lock_scanner());
        part_mm(mm)?;
        loop {
            let mut scanner = self.lock_scanner();
            let slot = self.shared.registry.find(mm);
            if slot.is_none_or(|slot| scanner.forget_some(&self.shared, &slot)) {
                return Ok(());
            }
            drop(scanner);
            cond_resched();
        }
    }

    /// Sets which domains count. Then no page is shared across these; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ERESTARTSYS`, `EINTR` and `EBUSY` as `unmerge_range()`, `EAGAIN` if new processes keep
    /// coming too fast; the rule is as before then.
    pub(crate) fn set_domain_rule(&self, rule: DomainRule) -> Result {
        let mut scanner = self.lock_scanner();
        let old = scanner.records().domain_rule();
        if rule < old {
            scanner.bring_domains_together(rule);
        } else if rule > old {
            let _oom = oom::Origin::new();
            scanner.rewind();
            part_domains(&self.shared, scanner.records(), (old, rule))?;
            scanner.records().tell_apart(rule);
        }
        self.shared.tunables.domains.set(rule as usize);
        Ok(())
    }

    /// Why pages of `mm` are not merged; `None` if the scan has not met it. Takes the scan mutex
    /// several times; sleeps.
    pub(crate) fn census(&self, mm: &Mm) -> Option<Census> {
        let slot = self.shared.registry.find(mm)?;
        let (mut census, mut last) = (Census::default(), None);
        loop {
            let mut scanner = self.lock_scanner();
            let records = scanner.records();
            // Items of the address space may all be gone by now, and another one have its handle.
            let space = records.tracked(&slot)?;
            last = records.count_some(space, last, &mut census);
            if last.is_none() {
                return Some(census);
            }
            drop(scanner);
            cond_resched();
        }
    }

    /// What the pages of each domain come to. Takes the scan mutex several times; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM` without memory for the sums.
    pub(crate) fn tenants(&self) -> Result<Tenants> {
        let (mut sums, mut look) = (Tenants::new(), Some(Look::Spaces(None)));
        while let Some(begin) = look {
            let mut scanner = self.lock_scanner();
            look = scanner.records().look_at_tenants(begin, &mut sums)?;
            drop(scanner);
            cond_resched();
        }
        Ok(sums)
    }

    /// Registers an address space, which is not registered.
    pub(crate) fn enter(&self, mm: &Mm) -> Result {
        self.shared.registry.enter(mm)?;
        // The thread waits for an address space only while it is to scan.
        if self.should_scan() {
            self.work.wake_all();
        }
        Ok(())
    }

    /// Forgets all address spaces. The hooks and the thread are gone, and there are no KSM pages.
    pub(crate) fn retire(&self) {
        let mut scanner = self.lock_scanner();
        scanner.rewind();
        scanner.close();
        collect_all_slots(&self.shared, scanner.records());
        while let Some(slot) = self.shared.registry.next(None) {
            clear_mergeable_flag(slot.mm());
            self.shared.registry.remove(&slot);
        }
    }

    /// Memory is about to go offline: leaves the trees alone until [`Ksm::end_offlining`].
    #[cfg(CONFIG_MEMORY_HOTREMOVE)]
    pub(crate) fn begin_offlining(&self) {
        let _scanner = self.lock_scanner();
        self.offlining.set(1);
    }

    /// Memory has gone offline, or has stayed.
    #[cfg(CONFIG_MEMORY_HOTREMOVE)]
    pub(crate) fn end_offlining(&self, gone: Option<&OfflineRange>) {
        let mut scanner = self.waiters.while_waiting(|| self.scanner.lock());
        if let Some(range) = gone {
            scanner.records().remove_offline_nodes(range);
        }
        self.offlining.set(0);
        drop(scanner);
        self.online.wake_all();
    }

    /// Takes the scan mutex, at a moment when no memory is going offline; has a step of the scan that
    /// is under way end soon, and sleeps until then.
    fn lock_scanner(&self) -> MutexGuard<'_, Scanner<F>> {
        self.waiters.while_waiting(|| self.wait_for_scanner())
    }

    /// Takes the scan mutex, at a moment when no memory is going offline; sleeps.
    fn wait_for_scanner(&self) -> MutexGuard<'_, Scanner<F>> {
        loop {
            let scanner = self.scanner.lock();
            if !self.offlining.is_set() {
                return scanner;
            }
            drop(scanner);
            self.online
                .wait_uninterruptible(|| !self.offlining.is_set());
        }
    }

    fn should_scan(&self) -> bool {
        self.run() == Run::Merge as usize && !self.shared.registry.is_idle()
    }

    fn scan(&self, thread: &Current) {
        let mut scanner = self.wait_for_scanner();
        // It may have been stopped while the lock was waited for.
        if self.should_scan() {
            let pages = self.shared.tunables.pages_to_scan.get();
            scanner.scan(&self.shared, &mut Step::new(&self.waiters, thread, pages));
        }
    }

    fn pause(&self, thread: &Current) {
        let millisecs = self.shared.tunables.sleep_millisecs.get();
        // Without a pause there would be no moment to freeze in.
        let limit = millisecs.max(usize::from(thread.should_pause()));
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        self.pause.wait(thread, Limit::Millis(limit), || {
            self.shared.tunables.sleep_millisecs.get() != millisecs || self.has_leftovers()
        });
    }
}

impl<F: Following> Desk for Ksm<F> {
    fn look_at_once(&self, slot: &MmSlot, range: &Range<usize>) -> bool {
        let scanner = self.scanner.try_lock();
        let Some(mut scanner) = scanner.filter(|_| !self.offlining.is_set()) else {
            return false;
        };
        scanner.catch_up_at_once(slot, range);
        true
    }
}

impl<F: Following> Body for Ksm<F> {
    fn run(&self, thread: &Current) {
        while !thread.should_stop() {
            if self.should_scan() {
                self.scan(thread);
                self.pause(thread);
                // The pause may be none.
                cond_resched();
            } else if self.has_leftovers() {
                self.wait_for_leftovers(thread);
            } else {
                self.work.wait(thread, Limit::None, || {
                    self.should_scan() || self.has_leftovers()
                });
            }
        }
    }
}

#[cfg(CONFIG_MEMORY_HOTREMOVE)]
impl<F: Following> MemoryListener for Ksm<F> {
    fn notify(&self, event: MemoryEvent) {
        match event {
            MemoryEvent::GoingOffline => self.begin_offlining(),
            MemoryEvent::Offline(range) => self.end_offlining(Some(&range)),
            MemoryEvent::CancelOffline => self.end_offlining(None),
        }
    }
}
