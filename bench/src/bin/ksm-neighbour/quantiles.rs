// SPDX-License-Identifier: GPL-2.0

//! Quantiles of many times.

use anyhow::{ensure, Result};
use serde::Serialize;

/// In the unit of the samples.
#[derive(Debug, PartialEq, Serialize)]
pub struct Quantiles {
    pub samples: usize,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Quantiles {
    /// Of at least one sample.
    pub fn of(mut samples: Vec<f64>) -> Result<Self> {
        ensure!(!samples.is_empty(), "nothing was measured");
        samples.sort_by(f64::total_cmp);
        let last = samples.len() - 1;
        let at = |share: f64| samples[(last as f64 * share).round() as usize];
        Ok(Self {
            samples: samples.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_found_in_any_order() {
        let samples = (0..=1000).rev().map(f64::from).collect();
        let expected = Quantiles {
            samples: 1001,
            p50: 500.0,
            p99: 990.0,
            p999: 999.0,
        };
        assert_eq!(Quantiles::of(samples).unwrap(), expected);
        assert!(Quantiles::of(Vec::new()).is_err());
    }
}
