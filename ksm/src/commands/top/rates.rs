// SPDX-License-Identifier: GPL-2.0

//! Changes between two looks.

use std::time::Duration;

use serde::Serialize;

use crate::statistics::Statistics;

/// Changes in a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Percent of a CPU that `ksmd` takes.
    pub cpu_percent: f64,
    /// Pages scanned in a second.
    pub scanned_per_second: f64,
    /// Pages saved in a second; negative if sharing ends.
    pub saved_per_second: f64,
}

impl Rates {
    /// From one look to the next.
    pub fn between(before: &Statistics, after: &Statistics, time: Duration) -> Self {
        let seconds = time.as_secs_f64().max(1e-6);
        let saved = |statistics: &Statistics| (statistics.sharing + statistics.zero) as f64;
        Self {
            cpu_percent: 100.0 * (after.cpu_seconds - before.cpu_seconds) / seconds,
            scanned_per_second: after.scanned.saturating_sub(before.scanned) as f64 / seconds,
            saved_per_second: (saved(after) - saved(before)) / seconds,
        }
    }
}
