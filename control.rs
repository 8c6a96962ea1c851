// SPDX-License-Identifier: GPL-2.0

//! What the scanner, the hooks and sysfs share, and the thread that scans.

#![deny(unsafe_code)]

use crate::{
    kthread::{
        self,
        Body,
        Limit,
        WaitQueue, //
    },
    mm::oom,
    module_hold::ModuleHold,
    numbers::{
        Stats,
        Tunable,
        Tunables, //
    },
    rmap_item::{
        ListCursor,
        RmapItem, //
    },
    scan::Scanner,
    slots::{
        Slots,
        Which, //
    }, //
};
use core::mem::size_of;
use kernel::{
    mm::Mm,
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    static_lock_class,
    sync::{
        Arc,
        Mutex, //
    },
    ThisModule, //
};

/// What `run` may be set to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Merged pages stay merged; nothing else happens.
    Stop = 0,
    Merge = 1,
    /// All is undone.
    Unmerge = 2,
}

impl TryFrom<u32> for Run {
    type Error = Error;

    fn try_from(value: u32) -> Result<Self> {
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
pub(crate) struct Ksm {
    #[pin]
    scanner: Mutex<Scanner>,
    #[pin]
    pub(crate) slots: Slots,
    run: Tunable<u32>,
    pub(crate) tunables: Tunables,
    pub(crate) stats: Stats,
    pub(crate) module: ModuleHold,
    /// Where the thread waits for something to do.
    #[pin]
    work: WaitQueue,
    /// Where the thread pauses between two steps of a scan.
    #[pin]
    pause: WaitQueue,
}

impl Ksm {
    /// `seed` makes the checksums of this boot unlike those of any other.
    pub(crate) fn new(module: &'static ThisModule, seed: u64) -> Result<Arc<Self>> {
        let scanner = Scanner::new(seed)?;
        Arc::pin_init(
            pin_init!(Self {
                scanner <- new_mutex!(scanner, "ksm_rs_scan"),
                slots <- Slots::new(),
                run: Tunable::new(Run::Stop as u32),
                tunables: Tunables::new(),
                stats: Stats::new(),
                module: ModuleHold::new(module),
                work <- WaitQueue::new(c"ksm_rs_work", static_lock_class!()),
                pause <- WaitQueue::new(c"ksm_rs_pause", static_lock_class!()),
            }),
            GFP_KERNEL,
        )
    }

    /// What `run` was last set to.
    pub(crate) fn run(&self) -> u32 {
        self.run.get()
    }

    /// Whether everything is being, or has been, undone.
    pub(crate) fn is_unmerging(&self) -> bool {
        self.run() == Run::Unmerge as u32
    }

    /// Starts or stops the scan, or undoes all that it has done; sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM` or `ERESTARTSYS` when not everything could be undone; `run` is 0 then.
    pub(crate) fn set_run(&self, run: Run) -> Result {
        let mut scanner = self.scanner.lock();
        self.run.set(run as u32);
        if run == Run::Unmerge {
            let _oom = oom::Origin::new();
            scanner.unmerge_all(self).inspect_err(|_| {
                self.run.set(Run::Stop as u32);
            })?;
        }
        drop(scanner);
        self.work.wake_all();
        Ok(())
    }

    /// Sets the pause between two steps; a pause that goes on ends.
    pub(crate) fn set_sleep_millisecs(&self, millisecs: u32) {
        self.tunables.sleep_millisecs.set(millisecs);
        self.pause.wake_all();
    }

    /// Sets how many mappings a KSM page may have.
    ///
    /// # Errors
    ///
    /// `EBUSY` while there are KSM pages.
    pub(crate) fn set_max_page_sharing(&self, limit: u32) -> Result {
        if self.tunables.max_page_sharing.get() == limit {
            return Ok(());
        }
        let mut scanner = self.scanner.lock();
        if self.stats.pages_shared.get() > 0 || !scanner.remove_unmapped_nodes(self) {
            return Err(EBUSY);
        }
        self.tunables.max_page_sharing.set(limit);
        Ok(())
    }

    /// Bytes that merging saves, less those that it takes; may be negative.
    pub(crate) fn general_profit(&self) -> isize {
        let saved = self.stats.pages_sharing.get() * PAGE_SIZE;
        let taken = self.stats.rmap_items.get() * size_of::<RmapItem>();
        saved as isize - taken as isize
    }

    /// Registers an address space, if it is not.
    pub(crate) fn enter(&self, mm: &Mm) -> Result {
        if self.slots.enter(mm)? {
            self.work.wake_all();
        }
        Ok(())
    }

    /// Forgets all address spaces. The hooks and the thread are gone, and there are no KSM pages.
    pub(crate) fn retire(&self) {
        let mut scanner = self.scanner.lock();
        scanner.rewind();
        while let Some(slot) = self.slots.next_tracked(None, Which::All) {
            if let Some(mm) = scanner.tracked(&slot) {
                scanner.collect_rest(self, &mut ListCursor::front(mm));
            }
            scanner.leave_slot(self, &slot);
            self.slots.remove(&slot);
        }
    }

    fn should_scan(&self) -> bool {
        self.run() == Run::Merge as u32 && !self.slots.is_empty()
    }

    fn scan(&self) {
        let mut scanner = self.scanner.lock();
        // It may have been stopped while the lock was waited for.
        if self.should_scan() {
            scanner.scan(self, self.tunables.pages_to_scan.get());
        }
    }

    fn pause(&self) {
        let millisecs = self.tunables.sleep_millisecs.get();
        // Without a pause there would be no moment to freeze in.
        let limit = millisecs.max(u32::from(kthread::should_pause()));
        self.pause.wait(Limit::Millis(limit), || {
            self.tunables.sleep_millisecs.get() != millisecs
        });
    }
}

impl Body for Ksm {
    fn run(&self) {
        while !kthread::should_stop() {
            if self.should_scan() {
                self.scan();
                self.pause();
            } else {
                self.work.wait(Limit::None, || self.should_scan());
            }
        }
    }
}
