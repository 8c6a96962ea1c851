// SPDX-License-Identifier: GPL-2.0

//! Fetching memory into a cache before it is looked at, on x86-64: the one architecture that
//! `KSM_PLUGGABLE` is for.
//!
//! C header: [`include/linux/prefetch.h`](srctree/include/linux/prefetch.h)

/// Names an instruction that fetches the cache line at which a value begins.
macro_rules! fetcher {
    ($(#[$attribute:meta])* $name:ident, $instruction:literal) => {
        $(#[$attribute])*
        #[inline(always)]
        pub(crate) fn $name<T>(target: &T) {
            // SAFETY: The instruction changes nothing but caches, and never faults.
            unsafe {
                core::arch::asm!(
                    $instruction,
                    in(reg) core::ptr::from_ref(target),
                    options(readonly, nostack, preserves_flags),
                )
            };
        }
    };
}

fetcher!(
    /// Fetches what is needed next, as near to the CPU as can be.
    prefetch,
    "prefetcht0 [{}]"
);

fetcher!(
    /// Fetches what is needed a little later into the second cache: more such fetches can be under
    /// way at a time.
    prefetch_for_later,
    "prefetcht1 [{}]"
);
