// SPDX-License-Identifier: GPL-2.0

//! Being told that mappings of an address space change.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use crate::mm::notifier::OWN;
use core::{
    ops::Range,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    container_of,
    error::to_result,
    mm::MmWithUser,
    prelude::*,
    types::Opaque, //
};

/// Somebody who is told.
///
/// The caller is any thread. It may hold mmap locks, locks of folios and of anon_vmas, and must not wait if it
/// is the OOM reaper: no method sleeps.
pub(crate) trait Subscriber: Send + Sync + 'static {
    /// Pages at these addresses may have got other mappings, or none. What was seen of them before may be out of date.
    fn changed(&self, addresses: Range<usize>);
}

/// The part of a subscription that the kernel knows.
#[repr(C)]
struct Notifier<S> {
    notifier: Opaque<bindings::mmu_notifier>,
    subscriber: S,
}

/// As long as this lives, `subscriber` is told; it may be told of a change that was under way a little longer.
///
/// # Invariants
///
/// The notifier is registered, and has one user. Its `mm_struct` is kept by the kernel until that has freed it.
pub(crate) struct Subscription<S: Subscriber> {
    notifier: NonNull<Notifier<S>>,
}

// SAFETY: A subscription may be ended by any thread.
unsafe impl<S: Subscriber> Send for Subscription<S> {}

impl<S: Subscriber> Subscription<S> {
    const OPS: &'static bindings::mmu_notifier_ops = &bindings::mmu_notifier_ops {
        invalidate_range_end: Some(end::<S>),
        free_notifier: Some(free::<S>),
        ..pin_init::zeroed()
    };

    /// Subscribes to changes of `mm`. Takes all locks of the address space for a moment.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the mmap lock cannot be had at once, `EINTR` if a signal is pending, `ENOMEM`.
    pub(crate) fn new(mm: &MmWithUser, subscriber: S) -> Result<Self> {
        let notifier = KBox::new(
            Notifier {
                notifier: Opaque::zeroed(),
                subscriber,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The caller is a user of the mm. The notifier is new, and stays where it is.
        unsafe {
            (*notifier.notifier.get()).ops = Self::OPS;
            if !bindings::ksm_mmap_write_trylock(mm.as_raw()) {
                return Err(EAGAIN);
            }
            let result = bindings::__mmu_notifier_register(notifier.notifier.get(), mm.as_raw());
            bindings::mmap_write_unlock(mm.as_raw());
            to_result(result)?;
        }
        // INVARIANT: It was just registered, for one user.
        Ok(Self {
            notifier: NonNull::from(KBox::leak(notifier)),
        })
    }
}

impl<S: Subscriber> Drop for Subscription<S> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the notifier is registered. The kernel calls `free` when nobody looks at
        // it any more.
        unsafe { bindings::mmu_notifier_put(self.notifier.as_ref().notifier.get()) };
    }
}

/// Waits until the kernel has freed what belonged to subscriptions that were ended; sleeps.
pub(crate) fn await_ends() {
    // SAFETY: The function has no preconditions.
    unsafe { bindings::mmu_notifier_synchronize() };
}

/// # Safety
///
/// `notifier` must be that of a [`Subscription<S>`] which is not freed for the duration of 'a.
unsafe fn behind<'a, S>(notifier: *mut bindings::mmu_notifier) -> &'a Notifier<S> {
    // SAFETY: The caller vouches for it.
    unsafe { &*container_of!(Opaque::cast_from(notifier), Notifier<S>, notifier) }
}

/// The change is done, or given up as another notifier must not wait.
///
/// # Safety
///
/// To be called by the kernel, for the notifier of a [`Subscription<S>`].
unsafe extern "C" fn end<S: Subscriber>(
    notifier: *mut bindings::mmu_notifier,
    range: *const bindings::mmu_notifier_range,
) {
    // SAFETY: The caller vouches for both.
    let (notifier, range) = unsafe { (behind::<S>(notifier), &*range) };
    let stays = matches!(
        range.event,
        bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_VMA
            | bindings::mmu_notifier_event_MMU_NOTIFY_PROTECTION_PAGE
            | bindings::mmu_notifier_event_MMU_NOTIFY_SOFT_DIRTY
    );
    if !stays && range.flags & OWN == 0 {
        notifier.subscriber.changed(range.start..range.end);
    }
}

/// # Safety
///
/// To be called by the kernel, once, when nobody looks at the notifier of a [`Subscription<S>`] any more.
unsafe extern "C" fn free<S: Subscriber>(notifier: *mut bindings::mmu_notifier) {
    // SAFETY: The notifier is the first field of what `Subscription::new` has leaked.
    drop(unsafe { KBox::from_raw(notifier.cast::<Notifier<S>>()) });
}
