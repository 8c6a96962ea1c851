// SPDX-License-Identifier: GPL-2.0

//! Signals that interrupt system calls.

use std::{mem, ptr};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal},
};

/// Microseconds from one signal to the next.
const PERIOD: libc::suseconds_t = 1000;

/// Sends this process a signal every millisecond, which does nothing but end a system call that can
/// be interrupted; until dropped.
pub struct PeriodicTimer(());

impl PeriodicTimer {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let action = SigAction::new(
            SigHandler::Handler(ignore),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: The handler touches nothing.
        unsafe { sigaction(Signal::SIGALRM, &action) }.context("sigaction")?;
        set(PERIOD)?;
        Ok(Self(()))
    }
}

extern "C" fn ignore(_: libc::c_int) {}

fn set(microseconds: libc::suseconds_t) -> Result<()> {
    // SAFETY: Zeros are a valid value.
    let mut timer: libc::itimerval = unsafe { mem::zeroed() };
    timer.it_value.tv_usec = microseconds;
    timer.it_interval.tv_usec = microseconds;
    // SAFETY: The timer is read, and the old one not asked for.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
    Errno::result(result).map(drop).context("setitimer")
}

impl Drop for PeriodicTimer {
    fn drop(&mut self) {
        set(0).expect("a timer that was started can be stopped");
    }
}
