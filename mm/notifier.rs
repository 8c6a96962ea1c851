// SPDX-License-Identifier: GPL-2.0

//! Telling secondary MMUs (KVM) that a range of mappings changes.
//!
//! C header: [`include/linux/mmu_notifier.h`](srctree/include/linux/mmu_notifier.h)

use crate::mm::vma::MergeableVma;
use kernel::{
    bindings,
    page::PAGE_SIZE,
    types::Opaque, //
};

/// Calls `change` while secondary MMUs do not map the page at `address` of `vma`.
///
/// Sleeps. `change` may hold page-table locks, which must not be held here.
pub(crate) fn with_page_invalidated<R>(
    vma: &MergeableVma<'_>,
    address: usize,
    change: impl FnOnce() -> R,
) -> R {
    let range = Opaque::<bindings::mmu_notifier_range>::uninit();
    let mm = vma.mm_raw();
    // SAFETY: The mm is alive because the vma is, whose mmap lock is held. The range is initialised
    // here and used nowhere else.
    unsafe { bindings::ksm_notify_range_start(range.get(), mm, address, address + PAGE_SIZE) };
    let result = change();
    // SAFETY: The range was started above, once.
    unsafe { bindings::ksm_notify_range_end(range.get()) };
    result
}
