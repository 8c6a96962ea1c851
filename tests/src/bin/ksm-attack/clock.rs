// SPDX-License-Identifier: GPL-2.0

//! How long one access to memory takes, as any program can tell.

use std::{
    arch::x86_64::{__rdtscp, _mm_clflush, _mm_lfence, _mm_mfence},
    ptr,
};

/// The CPU's clock, once all that was begun before has ended.
fn now() -> u64 {
    let mut cpu = 0;
    // SAFETY: Every 64-bit processor has these instructions; they touch no memory but `cpu`.
    unsafe {
        _mm_mfence();
        let time = __rdtscp(&mut cpu);
        _mm_lfence();
        time
    }
}

/// Cycles that `access` takes.
pub fn cycles(access: impl FnOnce()) -> u64 {
    let start = now();
    access();
    now() - start
}

/// Cycles that it takes to read the byte `at` of a page that the CPU knows where to find.
pub fn cycles_of_read(page: &[u8], at: usize) -> u64 {
    read(&page[0]);
    let byte = &page[at];
    cycles(|| read(byte))
}

/// Reads a byte here and now: the compiler may move other reads past the fences.
pub fn read(byte: &u8) {
    // SAFETY: A reference can be read.
    unsafe { ptr::read_volatile(byte) };
}

/// Takes what is at `byte` out of the caches of all CPUs.
pub fn flush(byte: &u8) {
    // SAFETY: Every 64-bit processor has these instructions, which change no content.
    unsafe {
        _mm_clflush(byte);
        _mm_mfence();
    }
}
