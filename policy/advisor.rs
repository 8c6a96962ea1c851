// SPDX-License-Identifier: GPL-2.0

//! The scan-time advisor: how many pages to scan at a time, so that a full scan takes as long as
//! the administrator wants it to, within a share of one CPU.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    mm::ksm_page::trace,
    policy::tunables::{
        Advisor,
        Tunables,
        U32_MAX, //
    }, //
};
use kernel::time::{
    Instant,
    Monotonic, //
};

/// Percent of a CPU that a scan may always take.
const MIN_CPU: usize = 10;

/// Percent that the latest change has in the average of changes.
const WEIGHT: usize = 30;

/// The advisor's measurements of the scans so far.
#[derive(Default)]
pub(crate) struct History {
    began: Option<Instant<Monotonic>>,
    last: LastScan,
}

/// The last full scan.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct LastScan {
    /// Seconds it took.
    time: usize,
    /// The average change of that time, in percent.
    change: usize,
    /// Nanoseconds of CPU time that the thread had taken at its end, since it was started; or, if
    /// there was none yet, when the first began.
    cpu_time: u64,
}

impl History {
    /// Notes that a full scan begins.
    pub(crate) fn begin(&mut self, advisor: &Advisor) {
        if advisor.enabled.is_set() {
            self.begin_with(kthread::cpu_time());
        }
    }

    /// Notes that a scan begins when the thread has taken so much CPU time.
    fn begin_with(&mut self, cpu_time: u64) {
        self.began = Some(Instant::now());
        if self.last == LastScan::default() {
            // Pages that were scanned before the advisor was asked are not this scan's.
            self.last.cpu_time = cpu_time;
        }
    }

    /// Sets `pages_to_scan` after a full scan.
    pub(crate) fn end(&mut self, advisor: &Advisor, tunables: &Tunables) {
        let Some(began) = self.began.take().filter(|_| advisor.enabled.is_set()) else {
            return;
        };
        let seconds = began.elapsed().as_millis() as usize / 1000;
        let measured = Measured {
            time: seconds.max(1),
            cpu_time: kthread::cpu_time(),
            pages_to_scan: tunables.pages_to_scan.get(),
        };
        let advice = advise(advisor, self.last, measured);
        self.last = advice.last;
        tunables.pages_to_scan.set(advice.pages_to_scan);
        trace::advisor(measured.time, advice.pages_to_scan, advice.cpu_percent);
    }

    /// Forgets the scans so far.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A full scan that has just ended.
#[derive(Clone, Copy)]
struct Measured {
    time: usize,
    cpu_time: u64,
    pages_to_scan: usize,
}

struct Advice {
    pages_to_scan: usize,
    cpu_percent: usize,
    last: LastScan,
}

/// `pages_to_scan` changes by how far the scan's time was from its target, and by the trend of that
/// time, but not beyond what the CPU time that a page has cost allows.
fn advise(advisor: &Advisor, last: LastScan, now: Measured) -> Advice {
    let cpu_millis = now.cpu_time.wrapping_sub(last.cpu_time) as usize / 1_000_000;
    let cpu_percent = divide(cpu_millis / 10, now.time).max(1);

    let before = match last.time {
        0 => now.time,
        time => time,
    };
    let latest = percent(now.time, before).max(1);
    let change = ((100 - WEIGHT) * last.change + WEIGHT * latest) / 100;

    let room = percent(advisor.target_scan_time.get(), now.time).max(1);
    let wanted = percent(now.pages_to_scan, room).saturating_mul(change) / 100;

    let for_one_percent = divide(now.pages_to_scan, cpu_percent).max(1);
    let pages_to_scan = wanted
        .min(for_one_percent.saturating_mul(advisor.max_cpu.get()))
        .max(for_one_percent.saturating_mul(MIN_CPU))
        .min(advisor.max_pages_to_scan.get())
        .min(U32_MAX);
    Advice {
        pages_to_scan,
        cpu_percent,
        last: LastScan {
            time: now.time,
            change,
            cpu_time: now.cpu_time,
        },
    }
}

// Tunables may have any value, which must not stop the kernel.

fn percent(part: usize, whole: usize) -> usize {
    divide(part.saturating_mul(100), whole)
}

fn divide(dividend: usize, divisor: usize) -> usize {
    dividend.checked_div(divisor).unwrap_or(usize::MAX)
}

#[kernel::macros::kunit_tests(ksm_rs_advisor)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn measured(time: usize, cpu_seconds: u64, pages_to_scan: usize) -> Measured {
        Measured {
            time,
            cpu_time: cpu_seconds * SECOND,
            pages_to_scan,
        }
    }

    fn steady(time: usize) -> LastScan {
        LastScan {
            time,
            change: 100,
            cpu_time: 0,
        }
    }

    #[test]
    fn a_scan_on_target_changes_nothing() {
        let advisor = Advisor::new();
        let advice = advise(&advisor, steady(200), measured(200, 60, 1000));
        assert_eq!(advice.cpu_percent, 30);
        assert_eq!(advice.pages_to_scan, 1000);
        assert_eq!(advice.last.change, 100);
    }

    #[test]
    fn a_slow_scan_gets_more_pages_and_a_fast_one_fewer() {
        let advisor = Advisor::new();
        let slow = advise(&advisor, steady(400), measured(400, 60, 1000));
        assert_eq!(slow.pages_to_scan, 2000);
        let fast = advise(&advisor, steady(100), measured(100, 60, 1000));
        assert_eq!(fast.pages_to_scan, 500);
    }

    #[test]
    fn the_cpu_share_is_a_bound_on_both_sides() {
        let advisor = Advisor::new();
        // 60 % at 600 pages: 10 pages a percent, 70 % at most.
        let slow = advise(&advisor, steady(2000), measured(2000, 1200, 600));
        assert_eq!(slow.pages_to_scan, 700);
        // 10 % at least.
        let fast = advise(&advisor, steady(10), measured(10, 6, 600));
        assert_eq!(fast.pages_to_scan, 100);
    }

    #[test]
    fn the_limit_on_pages_holds() {
        let advisor = Advisor::new();
        let advice = advise(&advisor, steady(4000), measured(4000, 0, 29000));
        assert_eq!(advice.pages_to_scan, 30000);
    }

    #[test]
    fn no_value_of_a_tunable_is_too_large() {
        let advisor = Advisor::new();
        for tunable in [
            &advisor.target_scan_time,
            &advisor.max_cpu,
            &advisor.max_pages_to_scan,
        ] {
            tunable.set(usize::MAX);
        }
        for pages in [1, U32_MAX] {
            let advice = advise(&advisor, steady(usize::MAX / 200), measured(1, 1, pages));
            assert!(advice.pages_to_scan <= U32_MAX);
        }
    }

    #[test]
    fn the_first_scan_is_not_charged_for_those_before() {
        let mut history = History::default();
        history.begin_with(3600 * SECOND);
        assert_eq!(history.last.cpu_time, 3600 * SECOND);
        let advice = advise(&Advisor::new(), history.last, measured(100, 3610, 500));
        assert_eq!(advice.cpu_percent, 10);
        history.last = advice.last;
        history.begin_with(3620 * SECOND);
        assert_eq!(history.last, advice.last);
    }

    #[test]
    fn the_first_scan_counts_as_its_own_predecessor() {
        let advisor = Advisor::new();
        let advice = advise(&advisor, LastScan::default(), measured(200, 60, 1000));
        assert_eq!(advice.last.change, WEIGHT);
        // 300 would be wanted, but 10 % of a CPU allow for more.
        assert_eq!(advice.pages_to_scan, 330);
    }
}
