// SPDX-License-Identifier: GPL-2.0

//! Address spaces: the users that keep one alive, its lock, and KSM's counters in it.
//!
//! C header: [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h),
//! [`include/linux/mmap_lock.h`](srctree/include/linux/mmap_lock.h)

use crate::mm::{
    domain::{
        Domain,
        DomainRule,
        DomainWord, //
    },
    vma::{
        AdvisedVma,
        LockedVma,
        MergeableVma,
        MmapLock, //
    }, //
};
use core::sync::atomic::{
    AtomicUsize,
    Ordering, //
};
use kernel::{
    bindings,
    error::{
        to_result,
        Result, //
    },
    mm::{
        Mm,
        MmWithUser,
        MmWithUserAsync,
        MmapReadGuard, //
    },
    sync::aref::ARef,
    time::{
        delay::fsleep,
        Delta, //
    },
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

/// Whether pages of `mm`, which has ended, may still be mapped.
///
/// `exit_mmap()` sets `MMF_OOM_SKIP` when it has unmapped all pages, if there was a vma at all.
pub(crate) fn is_being_unmapped(mm: &Mm) -> bool {
    let raw = mm.as_raw();
    // SAFETY: The `mm_struct` is alive; its flags are atomic, and both other fields are aligned words
    // that are read once.
    unsafe {
        let fields = &raw const (*raw).__bindgen_anon_1;
        let has_users = (&raw const (*fields).mm_users.counter).read_volatile() > 0;
        let has_vmas = (&raw const (*fields).map_count).read_volatile() > 0;
        !has_users && has_vmas && !bindings::ksm_mm_flags_test(bindings::MMF_OOM_SKIP as i32, raw)
    }
}

/// Whether forks of a process may be in another domain than it is.
pub(crate) fn domains_have_changed() -> bool {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::ksm_domains_have_changed() }
}

/// Has the kernel copy KSM pages that come back from swap to `mm`, whose domain is changing; takes the
/// mmap lock for writing, sleeps.
///
/// # Errors
///
/// `EINTR` if a fatal signal is pending.
pub(crate) fn note_domain_change(mm: &MmWithUser) -> Result {
    // SAFETY: The caller is a user of the address space.
    to_result(unsafe { bindings::ksm_note_domain_change(mm.as_raw()) })
}

/// How long somebody may still wait for mmap locks.
///
/// The lock of a process may be held for as long as that process likes. To wait for it must neither
/// stop the scan of all others, nor keep alive the memory of another process, of which the scan is a
/// user meanwhile.
pub(crate) struct Patience {
    pauses_left: u32,
}

impl Patience {
    /// Two milliseconds, in pauses that are long enough for others to do something.
    const PAUSES: u32 = 20;
    const PAUSE_MICROS: i64 = 100;

    /// Waits for a moment, if there is time for it; returns whether; sleeps.
    fn wait(&mut self) -> bool {
        let has_time = self.pauses_left > 0;
        if has_time {
            self.pauses_left -= 1;
            fsleep(Delta::from_micros(Self::PAUSE_MICROS));
        }
        has_time
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            pauses_left: Self::PAUSES,
        }
    }
}

/// An address space whose mmap lock is held for reading.
pub(crate) struct ReadLockedMm<'a> {
    mm: &'a MmWithUser,
    guard: MmapReadGuard<'a>,
}

impl<'a> ReadLockedMm<'a> {
    /// Takes the mmap lock; sleeps for as long as that takes.
    pub(crate) fn new(mm: &'a MmWithUser) -> Self {
        Self {
            mm,
            guard: mm.mmap_read_lock(),
        }
    }

    /// Takes the mmap lock if it can be had within the time that `patience` leaves; sleeps.
    pub(crate) fn try_new(mm: &'a MmWithUser, patience: &mut Patience) -> Option<Self> {
        loop {
            if let Some(guard) = mm.mmap_read_trylock() {
                return Some(Self { mm, guard });
            }
            if !patience.wait() {
                return None;
            }
        }
    }

    /// The vmas that end above `address`, in their order.
    pub(crate) fn vmas_from(&self, address: usize) -> Vmas<'_> {
        // INVARIANT: `start` is some address. The mmap lock is held.
        Vmas {
            locked: self,
            start: Some(address),
            vmas: Opaque::uninit(),
        }
    }

    /// The domain of the address space, of which `rule` says what counts; `None` if nothing may be merged
    /// now.
    pub(crate) fn domain(&self, rule: DomainRule) -> Option<Domain> {
        let word = self.domain_word();
        word.is_settled().then(|| rule.domain_of(word))
    }

    /// The domain of the address space as the kernel knows it.
    pub(crate) fn domain_word(&self) -> DomainWord {
        let raw = self.mm.as_raw();
        // SAFETY: The mm is alive. Exec settles the domain without the mmap lock, once; else it does not
        // change as long as that is held.
        let word = unsafe { (&raw const (*raw).__bindgen_anon_1.ksm_domain).read_volatile() };
        DomainWord::new(word)
    }

    /// The vma that contains `address`, if pages of it may be merged in the `domain` in which they were
    /// looked up, which the address space may have left.
    pub(crate) fn mergeable_in(
        &self,
        (domain, rule): (Domain, DomainRule),
        address: usize,
    ) -> Option<MergeableVma<'_>> {
        match self.domain(rule) {
            Some(its) if its == domain => self.advised_at(address),
            _ => None,
        }
    }

    /// The vma that contains `address`, if it is advised and has anonymous pages. Only zero pages may take
    /// the place of its pages: they are of every domain.
    pub(crate) fn advised_at(&self, address: usize) -> Option<MergeableVma<'_>> {
        let vma = self.guard.vma_lookup(address)?.as_ptr();
        // SAFETY: The lock is held for as long as `self` is borrowed.
        AdvisedVma::new(unsafe { LockedVma::from_raw(vma, MmapLock::Read) })?.populated()
    }
}

/// Iterator over the vmas of an address space.
///
/// # Invariants
///
/// Unless there is a `start`, `vmas` is initialised, and iterates over the vmas of `locked`.
pub(crate) struct Vmas<'a> {
    locked: &'a ReadLockedMm<'a>,
    /// Where to begin: to initialise `vmas` only then spares moving it.
    start: Option<usize>,
    vmas: Opaque<bindings::vma_iterator>,
}

impl<'a> Iterator for Vmas<'a> {
    type Item = LockedVma<'a>;

    fn next(&mut self) -> Option<LockedVma<'a>> {
        let vmas = self.vmas.get();
        if let Some(start) = self.start.take() {
            // INVARIANT: The iterator is initialised when there is no start any more.
            // SAFETY: The mm is alive; any address will do.
            unsafe { bindings::vma_iter_init(vmas, self.locked.mm.as_raw(), start) };
        }
        // SAFETY: By the type invariant the iterator is initialised, and the vmas do not change, as
        // the mmap lock is held.
        let vma = unsafe { bindings::vma_next(vmas) };
        if vma.is_null() {
            return None;
        }
        // SAFETY: The lock is held for as long as `locked` is borrowed.
        Some(unsafe { LockedVma::from_raw(vma, MmapLock::Read) })
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
    /// `ksm_zero_pages`: pages that the zero page has replaced; the kernel changes it as well.
    ZeroPages,
}

/// A counter of `mm`.
pub(crate) fn read(mm: &Mm, counter: Counter) -> usize {
    counter_of(mm, counter).load(Ordering::Relaxed)
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
            Counter::ZeroPages => (&raw mut (*fields).ksm_zero_pages).cast(),
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

/// Address spaces without users, vmas and page tables, for KUnit suites.
///
/// # Invariants
///
/// Each `mm_struct` is all zeros but for its counts of references, and has one reference that is never
/// given back.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) struct EmptyMms(
    kernel::prelude::KVec<kernel::prelude::KBox<Opaque<bindings::mm_struct>>>,
);

#[cfg(CONFIG_KUNIT = "y")]
impl EmptyMms {
    /// `count` of them. They must outlive all references to them, or the memory is leaked.
    pub(crate) fn new(count: usize) -> kernel::error::Result<Self> {
        use kernel::prelude::*;

        let mut mms = KVec::with_capacity(count, GFP_KERNEL)?;
        for _ in 0..count {
            let mm = KBox::new(Opaque::zeroed(), GFP_KERNEL)?;
            mms.push(mm, GFP_KERNEL)?;
        }
        // INVARIANT: See the next lines.
        let mms = Self(mms);
        for index in 0..count {
            // This reference is never given back.
            core::mem::forget(ARef::from(mms.get(index)));
        }
        Ok(mms)
    }

    /// Number `index`.
    pub(crate) fn get(&self, index: usize) -> &Mm {
        // SAFETY: The memory is that of an `mm_struct` whose count of references is not zero when others
        // use it.
        unsafe { Mm::from_raw(self.0[index].get()) }
    }
}

#[cfg(CONFIG_KUNIT = "y")]
impl Drop for EmptyMms {
    fn drop(&mut self) {
        for mm in core::mem::take(&mut self.0) {
            // SAFETY: The memory is alive; the field is atomic.
            let references = unsafe {
                (*mm.get())
                    .__bindgen_anon_1
                    .__bindgen_anon_1
                    .mm_count
                    .counter
            };
            if references != 1 {
                core::mem::forget(mm);
            }
        }
    }
}
