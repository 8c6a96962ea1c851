// SPDX-License-Identifier: GPL-2.0

//! How much a step of the scan may do.
//!
//! `pages_to_scan` counts pages that are scanned. To pass over a page, to free an item or to look
//! through a page table costs much less, but can be necessary millions of times between two pages.
//! So such work is charged as well, by fractions of a page, and a step has an end in any case.

#![deny(unsafe_code)]

use crate::kernel_api::kthread::{
    self,
    Current, //
};
use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

/// A kind of work of the scan, and its price for a step, in 64ths of a page.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// Passing over a page, an item or a vma, or freeing an item.
    Small = 1,
    /// Looking through a page table, or a range that has none.
    Table = 8,
    /// Finding out that nobody has touched a page.
    Untouched = 16,
    /// Scanning a page.
    Page = 64,
}

/// Those who wait for the end of a step.
pub(crate) struct Waiters(Atomic<usize>);

impl Waiters {
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Lets steps end soon, until `wait` returns.
    pub(crate) fn while_waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        self.0.fetch_add(1, Relaxed);
        let result = wait();
        self.0.fetch_sub(1, Relaxed);
        result
    }

    fn are_there(&self) -> bool {
        self.0.load(Relaxed) > 0
    }
}

/// One step of the scan.
pub(crate) struct Step<'a> {
    waiters: &'a Waiters,
    thread: &'a Current,
    /// In the units of [`Work`].
    left: usize,
}

impl<'a> Step<'a> {
    /// A step of `thread` that scans up to `pages` pages.
    pub(crate) fn new(waiters: &'a Waiters, thread: &'a Current, pages: usize) -> Self {
        Self {
            waiters,
            thread,
            left: pages.saturating_mul(Work::Page as usize),
        }
    }

    /// Whether the step may do more.
    #[inline]
    pub(crate) fn has_left(&self) -> bool {
        self.left > 0
    }

    /// As [`Step::has_left`]; also false as soon as somebody waits for the end of the step.
    pub(crate) fn goes_on(&self) -> bool {
        self.has_left() && !self.waiters.are_there() && !self.thread.should_pause()
    }

    /// How many pages the step may scan.
    pub(crate) fn pages(&self) -> usize {
        self.left.div_ceil(Work::Page as usize)
    }

    /// Charges the step for `count` times this work.
    #[inline]
    pub(crate) fn charge(&mut self, work: Work, count: usize) {
        self.left = self
            .left
            .saturating_sub(count.saturating_mul(work as usize));
    }

    /// Repeats `portion` until all is done, or the step ends; returns whether all is done. Sleeps.
    ///
    /// `portion` does up to `most` pieces of [small](Work::Small) work, and says how many it did; fewer
    /// than `most` mean that it has done all.
    pub(crate) fn repeat(&mut self, most: usize, mut portion: impl FnMut() -> usize) -> bool {
        loop {
            let done = portion();
            self.charge(Work::Small, done);
            if done < most {
                return true;
            }
            if !self.goes_on() {
                return false;
            }
            kthread::cond_resched();
        }
    }

    /// Ends the step.
    pub(crate) fn end(&mut self) {
        self.left = 0;
    }
}

#[kernel::macros::kunit_tests(ksm_rs_pace)]
mod tests {
    use super::*;

    /// Calls `test` with a step of `pages` pages.
    fn with_step(pages: usize, test: impl FnOnce(&Waiters, Step<'_>)) {
        let (waiters, thread) = (Waiters::new(), Current::in_kunit());
        test(&waiters, Step::new(&waiters, &thread, pages));
    }

    #[test]
    fn a_step_ends_after_its_pages() {
        with_step(3, |_, mut step| {
            for left in [3, 2, 1] {
                assert!(step.has_left() && step.goes_on());
                assert_eq!(step.pages(), left);
                step.charge(Work::Page, 1);
            }
            assert!(!step.has_left() && !step.goes_on());
            assert_eq!(step.pages(), 0);
        });
    }

    #[test]
    fn other_work_is_charged_by_fractions_of_a_page() {
        with_step(1, |_, mut step| {
            step.charge(Work::Table, 7);
            assert!(step.has_left());
            step.charge(Work::Small, 7);
            assert!(step.has_left());
            // The work that is begun may be a page still.
            assert_eq!(step.pages(), 1);
            step.charge(Work::Small, 1);
            assert!(!step.has_left());
        });
    }

    #[test]
    fn no_number_is_too_large() {
        with_step(usize::MAX, |_, mut step| {
            step.charge(Work::Page, 1);
            assert!(step.has_left());
            step.charge(Work::Page, usize::MAX);
            assert!(!step.has_left());
        });
    }

    #[test]
    fn a_step_does_not_go_on_while_somebody_waits() {
        with_step(2, |waiters, step| {
            waiters.while_waiting(|| {
                assert!(step.has_left() && !step.goes_on());
            });
            assert!(step.goes_on());
        });
    }

    #[test]
    fn work_is_repeated_until_it_is_done_or_the_step_ends() {
        with_step(1, |_, mut step| {
            let mut left = 20;
            let mut portion = || {
                let done = left.min(8);
                left -= done;
                done
            };
            // 8, 8 and 4.
            assert!(step.repeat(8, &mut portion));
            assert!(step.has_left());
        });
        with_step(1, |_, mut step| {
            let mut portions = 0;
            let is_done = step.repeat(8, || {
                portions += 1;
                8
            });
            assert!(!is_done);
            assert_eq!(portions, Work::Page as usize / 8);
        });
    }
}
