// SPDX-License-Identifier: GPL-2.0

//! Fetching memory into a cache before it is looked at.
//!
//! C header: [`include/linux/prefetch.h`](srctree/include/linux/prefetch.h)

/// Names an instruction that fetches the cache line at which a value begins.
macro_rules! fetcher {
    ($(#[$attribute:meta])* $name:ident, $x86_64:literal, $aarch64:literal) => {
        $(#[$attribute])*
        #[inline(always)]
        pub(crate) fn $name<T>(target: &T) {
            let _target = core::ptr::from_ref(target);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: The instruction changes nothing but caches, and never faults.
            unsafe {
                core::arch::asm!(
                    $x86_64,
                    in(reg) _target,
                    options(readonly, nostack, preserves_flags),
                )
            };
            #[cfg(target_arch = "aarch64")]
            // SAFETY: As above.
            unsafe {
                core::arch::asm!(
                    $aarch64,
                    in(reg) _target,
                    options(readonly, nostack, preserves_flags),
                )
            };
        }
    };
}

fetcher!(
    /// Fetches what is needed next, as near to the CPU as can be.
    prefetch,
    "prefetcht0 [{}]",
    "prfm pldl1keep, [{}]"
);

fetcher!(
    /// Fetches what is needed a little later into the second cache: more such fetches can be under
    /// way at a time.
    prefetch_for_later,
    "prefetcht1 [{}]",
    "prfm pldl2keep, [{}]"
);
