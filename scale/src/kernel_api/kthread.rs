// SPDX-License-Identifier: GPL-2.0

//! The CPU, which nobody else wants, but which must be offered.

use std::cell::Cell;

thread_local! {
    static OFFERS: Cell<u64> = const { Cell::new(0) };
}

/// Lets others run if it is their turn: counts how often they could have.
pub(crate) fn cond_resched() {
    OFFERS.set(OFFERS.get() + 1);
}

/// How often others could have run.
pub(crate) fn offers() -> u64 {
    OFFERS.get()
}
