// SPDX-License-Identifier: GPL-2.0

//! Code for tests only. Kernels without fault injection and KUnit have none of it.

#[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
pub(crate) mod checksum_bits;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod fake_page;
pub(crate) mod race_delay;
#[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
pub(crate) mod race_knobs;
pub(crate) mod race_window;
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) mod random;
