// SPDX-License-Identifier: GPL-2.0

//! Address spaces: the users that keep one alive, its lock, and KSM's counters in it.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h),
//! [`include/linux/mmap_lock.h`](srctree/include/linux/mmap_lock.h)

use crate::mm::vma::{
    AdvisedVma,
    LockedVma,
    MergeableVma,
    MmapLock, //
};
use core::sync::atomic::{
    AtomicUsize,
    Ordering, //
};
use kernel::{
    bindings,
    mm::{
        Mm,
        MmWithUser,
        MmWithUserAsync,
        MmapReadGuard, //
    },
    sync::aref::ARef,
    types::Opaque, //
};

/// An address space that does not end as long as this lives.
///
/// If it is the last user, the end is left to a work queue: `ksmd` has no time for it.
pub(crate) type UserMm = ARef<MmWithUserAsync>;

/// Marks `mm` as one that the module does not know, and has to be told about.
pub(crate) fn clear_mergeable_flag(mm: &Mm) {
    // SAFETY: The `mm_struct` is alive; its flags are atomic.
    unsafe { bindings::ksm_mm_flags_clear(bindings::MMF_VM_MERGEABLE as i32, mm.as_raw()) };
}

/// Keeps `mm` from ending, unless it is ending already.
pub(crate) fn user_of(mm: &Mm) -> Option<UserMm> {
    mm.mmget_not_zero().map(MmWithUser::into_mmput_async)
}

/// An address space whose mmap lock is held for reading.
pub(crate) struct ReadLockedMm<'a> {
    mm: &'a MmWithUser,
    guard: MmapReadGuard<'a>,
}

impl<'a> ReadLockedMm<'a> {
    /// Takes the mmap lock; sleeps.
    pub(crate) fn new(mm: &'a MmWithUser) -> Self {
        Self {
            mm,
            guard: mm.mmap_read_lock(),
        }
    }

    /// The advised vmas that end above `address`, in their order.
    pub(crate) fn advised_from(&self, address: usize) -> AdvisedVmas<'_> {
        // INVARIANT: `start` is some address. The mmap lock is held.
        AdvisedVmas {
            locked: self,
            start: Some(address),
            vmas: Opaque::uninit(),
        }
    }

    /// The vma that contains `address`, if pages of it may be merged.
    pub(crate) fn mergeable_at(&self, address: usize) -> Option<MergeableVma<'_>> {
        let vma = self.guard.vma_lookup(address)?.as_ptr();
        // SAFETY: The lock is held for as long as `self` is borrowed.
        AdvisedVma::new(unsafe { LockedVma::from_raw(vma, MmapLock::Read) })?.populated()
    }
}

/// Iterator over the advised vmas of an address space.
///
/// # Invariants
///
/// Unless there is a `start`, `vmas` is initialised, and iterates over the vmas of `locked`.
pub(crate) struct AdvisedVmas<'a> {
    locked: &'a ReadLockedMm<'a>,
    /// Where to begin: to initialise `vmas` only then spares moving it.
    start: Option<usize>,
    vmas: Opaque<bindings::vma_iterator>,
}

impl<'a> Iterator for AdvisedVmas<'a> {
    type Item = AdvisedVma<'a>;

    fn next(&mut self) -> Option<AdvisedVma<'a>> {
        let vmas = self.vmas.get();
        if let Some(start) = self.start.take() {
            // INVARIANT: The iterator is initialised when there is no start any more.
            // SAFETY: The mm is alive; any address will do.
            unsafe { bindings::vma_iter_init(vmas, self.locked.mm.as_raw(), start) };
        }
        // SAFETY: By the type invariant the iterator is initialised, and the vmas do not change, as
        // the mmap lock is held.
        let vma = unsafe { bindings::ksm_next_advised_vma(vmas) };
        if vma.is_null() {
            return None;
        }
        // SAFETY: The lock is held for as long as `locked` is borrowed.
        AdvisedVma::new(unsafe { LockedVma::from_raw(vma, MmapLock::Read) })
    }
}

/// A counter of `struct mm_struct` that only a holder of the scan mutex changes, and that
/// `/proc/<pid>/ksm_stat` reads without any lock.
#[derive(Clone, Copy)]
pub(crate) enum Counter {
    /// `ksm_rmap_items`: pages that are tracked.
    RmapItems,
    /// `ksm_merging_pages`: pages that are mappings of a KSM page.
    MergingPages,
}

/// Adds `change` to a counter of `mm`.
pub(crate) fn count(mm: &Mm, counter: Counter, change: isize) {
    let word = counter_of(mm, counter);
    word.store(
        word.load(Ordering::Relaxed).wrapping_add_signed(change),
        Ordering::Relaxed,
    );
}

/// Sets a counter of `mm` to zero.
pub(crate) fn reset(mm: &Mm, counter: Counter) {
    counter_of(mm, counter).store(0, Ordering::Relaxed);
}

fn counter_of(mm: &Mm, counter: Counter) -> &AtomicUsize {
    let raw = mm.as_raw();
    // SAFETY: `mm` is alive, and both fields are aligned words in it.
    let word = unsafe {
        let fields = &raw mut (*raw).__bindgen_anon_1;
        match counter {
            Counter::RmapItems => &raw mut (*fields).ksm_rmap_items,
            Counter::MergingPages => &raw mut (*fields).ksm_merging_pages,
        }
    };
    // SAFETY: See above. Everybody else reads these words only; fork sets those of a new mm to zero
    // before KSM knows it.
    unsafe { AtomicUsize::from_ptr(word) }
}

/// How many zero pages KSM has put in place of others; the kernel's own count.
pub(crate) fn zero_pages() -> isize {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::ksm_zero_page_count() as isize }
}
