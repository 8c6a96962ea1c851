// SPDX-License-Identifier: GPL-2.0

//! CPU time of a scan, from the project's benchmark.

use serde::Serialize;

/// Nanoseconds that one KSM takes in a full scan (`smart_scan` 0), for a page that has no equal and for one that is
/// merged: the workloads `unique` and `pairs` of `bench/results/table.md`, on one CPU of an AMD EPYC.
struct Costs {
    without_equal: f64,
    merged: f64,
}

const MAINLINE: Costs = Costs {
    without_equal: 1808.0,
    merged: 35.1,
};
const KSM_RS: Costs = Costs {
    without_equal: 146.0,
    merged: 10.7,
};

/// Seconds of a CPU that a full scan takes once all is merged.
#[derive(Debug, Serialize)]
pub struct ScanSeconds {
    /// With the kernel's own KSM.
    pub mainline: f64,
    /// With `ksm_rs`.
    pub ksm_rs: f64,
}

/// The cost of a scan over so many pages of each kind.
pub fn scan(without_equal: u64, merged: u64) -> ScanSeconds {
    let seconds = |costs: &Costs| {
        (without_equal as f64 * costs.without_equal + merged as f64 * costs.merged) / 1e9
    };
    ScanSeconds {
        mainline: seconds(&MAINLINE),
        ksm_rs: seconds(&KSM_RS),
    }
}
