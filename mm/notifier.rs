// SPDX-License-Identifier: GPL-2.0

//! Telling secondary MMUs (KVM) that a range of mappings changes.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use crate::mm::vma::{
    LockedVma,
    MergeableVma, //
};
use core::ops::Range;
use kernel::{
    bindings,
    page::PAGE_SIZE,
    types::Opaque, //
};

/// Marks a notice of a merge, of which the module knows. The kernel passes flags that it does not know on.
pub(crate) const OWN: u32 = 1 << 16;

/// As [`with_range_invalidated`], of the page at `address`.
pub(crate) fn with_page_invalidated<R>(
    vma: &MergeableVma<'_>,
    address: usize,
    change: impl FnOnce() -> R,
) -> R {
    with_notice(vma.vma(), (address..address + PAGE_SIZE, OWN), change)
}

/// Calls `change` while secondary MMUs do not map the addresses of `range`, which lies in `vma`.
///
/// Sleeps. `change` may hold page-table locks, which must not be held here.
pub(crate) fn with_range_invalidated<R>(
    vma: LockedVma<'_>,
    range: Range<usize>,
    change: impl FnOnce() -> R,
) -> R {
    with_notice(vma, (range, 0), change)
}

#[inline(always)]
fn with_notice<R>(
    vma: LockedVma<'_>,
    (range, flags): (Range<usize>, u32),
    change: impl FnOnce() -> R,
) -> R {
    let notice = Opaque::<bindings::mmu_notifier_range>::uninit();
    // SAFETY: The mm is alive because the vma is, whose mmap lock is held. The notice is initialised
    // here and used nowhere else.
    unsafe {
        bindings::mmu_notifier_range_init(
            notice.get(),
            bindings::mmu_notifier_event_MMU_NOTIFY_CLEAR,
            flags,
            vma.mm_raw(),
            range.start,
            range.end,
        );
        bindings::mmu_notifier_invalidate_range_start(notice.get());
    }
    let result = change();
    // SAFETY: It was started above, once.
    unsafe { bindings::mmu_notifier_invalidate_range_end(notice.get()) };
    result
}
