// SPDX-License-Identifier: GPL-2.0

//! Memory that the current thread has asked its allocators for.

use crate::page::PAGE_SIZE;
use std::cell::Cell;

thread_local! {
    static LARGEST_VECTOR: Cell<usize> = const { Cell::new(0) };
    static HIGHEST_ORDER: Cell<u32> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static PAGES: Cell<isize> = const { Cell::new(0) };
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// The highest order of an allocation of contiguous memory since [`reset`].
pub fn highest_order() -> u32 {
    HIGHEST_ORDER.get()
}

/// The size in bytes of the largest allocation since [`reset`] for which `kvmalloc()` falls back to
/// single pages.
pub fn largest_vector() -> usize {
    LARGEST_VECTOR.get()
}

/// How many allocations there were since [`reset`].
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

/// How many single pages are in use, of those that this thread has asked for or given back.
pub fn pages() -> isize {
    PAGES.get()
}

/// Bytes that the program has from the host for pages, and that are in nobody's use.
pub fn spare_bytes() -> usize {
    crate::pages::spare_bytes()
}

/// Forgets what was counted of allocations.
pub fn reset() {
    HIGHEST_ORDER.set(0);
    LARGEST_VECTOR.set(0);
    ALLOCATIONS.set(0);
}

/// Calls `f` while every allocation of this thread fails.
pub fn without_memory<R>(f: impl FnOnce() -> R) -> R {
    REFUSED.set(true);
    let result = f();
    REFUSED.set(false);
    result
}

/// Counts an allocation of contiguous memory; returns whether it may be made.
pub(crate) fn admit(bytes: usize) -> bool {
    let pages = bytes.div_ceil(PAGE_SIZE).next_power_of_two();
    HIGHEST_ORDER.set(HIGHEST_ORDER.get().max(pages.trailing_zeros()));
    admit_any()
}

/// Counts an allocation of memory that may consist of single pages; returns whether it may be made.
pub(crate) fn admit_vector(bytes: usize) -> bool {
    LARGEST_VECTOR.set(LARGEST_VECTOR.get().max(bytes));
    admit_any()
}

fn admit_any() -> bool {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    !REFUSED.get()
}

/// Counts pages that are in use from now on, or not any more.
pub(crate) fn count_pages(change: isize) {
    PAGES.set(PAGES.get() + change);
}
