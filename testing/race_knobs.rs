// SPDX-License-Identifier: GPL-2.0

//! When and for how long the windows of races are held open: files of the directory `ksm_rs` of
//! debugfs.
//!
//! | file | what it is |
//! |---|---|
//! | `max_us` | the longest delay in microseconds; 0, the default: none |
//! | `one_in` | how often a window is passed until it is held open once, on average (16) |
//! | `windows` | which windows, as bits in the order of [`RaceWindow`] (all) |
//! | `seed` | where the random numbers begin; to be written anew before each run (0) |
//! | `held` | how often each window was held open, in the order of [`RaceWindow`] |
//!
//! `checksum_bits.rs` has a file there, too.

#![deny(unsafe_code)]

use crate::testing::{
    checksum_bits::CHECKSUM_BITS,
    race_window::RaceWindow, //
};
use core::num::NonZeroU32;
use kernel::{
    debugfs::ScopedDir,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

static MAX_US: Atomic<u32> = Atomic::new(0);
static ONE_IN: Atomic<u32> = Atomic::new(16);
static WINDOWS: Atomic<u32> = Atomic::new(u32::MAX);
static SEED: Atomic<u64> = Atomic::new(0);
static HELD: Held = Held([const { Atomic::new(0) }; RaceWindow::COUNT]);

/// How often each window was held open.
#[derive(Debug)]
struct Held([Atomic<u32>; RaceWindow::COUNT]);

/// Makes the files.
pub(crate) fn add_files(dir: &ScopedDir<'_, '_>) {
    dir.read_write_file(c"max_us", &MAX_US);
    dir.read_write_file(c"one_in", &ONE_IN);
    dir.read_write_file(c"windows", &WINDOWS);
    dir.read_write_file(c"seed", &SEED);
    dir.read_only_file(c"held", &HELD);
    dir.read_write_file(c"checksum_bits", &CHECKSUM_BITS);
}

/// For how many microseconds `window` is to be held open now, if at all.
pub(super) fn draw(window: RaceWindow) -> Option<NonZeroU32> {
    let limit = MAX_US.load(Relaxed);
    if limit == 0 || WINDOWS.load(Relaxed) & (1 << window as u32) == 0 {
        return None;
    }
    let random = random();
    if random % ONE_IN.load(Relaxed).max(1) != 0 {
        return None;
    }
    HELD.0[window as usize].fetch_add(1, Relaxed);
    NonZeroU32::new(random.rotate_left(16) % limit)
}

/// The next number of the series that [`SEED`] is at: splitmix64.
fn random() -> u32 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bits = SEED.fetch_add(STEP, Relaxed);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ bits >> 31) as u32
}
