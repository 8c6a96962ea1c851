// SPDX-License-Identifier: GPL-2.0

//! The lists by which reclaim finds pages.
//!
//! C header: [`include/linux/swap.h`](srctree/include/linux/swap.h)

use kernel::bindings;

/// Moves pages from the batches of all CPUs to the lists; sleeps.
pub(crate) fn drain_all() {
    // SAFETY: The function may be called from any context that may sleep.
    unsafe { bindings::lru_add_drain_all() };
}
