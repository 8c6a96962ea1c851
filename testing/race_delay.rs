// SPDX-License-Identifier: GPL-2.0

//! Holding the windows of races open for a random time, if a test wants that.
//!
//! In kernels without fault injection the functions are empty.

#![deny(unsafe_code)]

#[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
use crate::testing::race_knobs::draw;
use crate::testing::race_window::RaceWindow;
#[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
use kernel::time::{
    delay::{
        fsleep,
        udelay, //
    },
    Delta, //
};

/// The longest that a CPU is kept busy, in microseconds.
#[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
const LONGEST_SPIN_US: u32 = 200;

/// Holds `window` open for a moment; may sleep.
#[inline(always)]
pub(crate) fn pause(window: RaceWindow) {
    #[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
    if let Some(micros) = draw(window) {
        fsleep(Delta::from_micros(micros.get().into()));
    }
    let _ = window;
}

/// As [`pause`], for callers that may not sleep.
#[inline(always)]
pub(crate) fn spin(window: RaceWindow) {
    #[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
    if let Some(micros) = draw(window) {
        udelay(Delta::from_micros(micros.get().min(LONGEST_SPIN_US).into()));
    }
    let _ = window;
}
