// SPDX-License-Identifier: GPL-2.0

//! What is printed in the end.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::{ksmd::Ksmd, statistics::nanoseconds_each};

/// Named numbers; the end of a name is the unit.
#[derive(Default, Serialize)]
pub struct Measures {
    measures: BTreeMap<&'static str, f64>,
    /// Values of one quantity after each scan.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    curves: BTreeMap<&'static str, Vec<f64>>,
}

impl Measures {
    /// Adds a number, to a tenth.
    pub fn add(&mut self, name: &'static str, value: f64) {
        self.measures.insert(name, to_a_tenth(value));
    }

    /// Adds numbers, one after each scan, to a tenth.
    pub fn add_curve(&mut self, name: &'static str, values: Vec<f64>) {
        let values = values.into_iter().map(to_a_tenth).collect();
        self.curves.insert(name, values);
    }

    /// Adds what all scans have cost on average, by our clock and by the kernel's account.
    pub fn add_cross_check(&mut self, ksmd: &Ksmd, pages: usize) -> Result<()> {
        let (ours, kernels) = ksmd.mean_scan()?;
        self.add("mean_ns_per_page", nanoseconds_each(ours, pages));
        self.add("schedstat_ns_per_page", nanoseconds_each(kernels, pages));
        Ok(())
    }
}

fn to_a_tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The result of one run.
#[derive(Serialize)]
pub struct Report {
    workload: &'static str,
    mib: usize,
    pages: usize,
    #[serde(flatten)]
    measures: Measures,
}

impl Report {
    pub fn new(workload: &'static str, mib: usize, pages: usize, measures: Measures) -> Self {
        Self {
            workload,
            mib,
            pages,
            measures,
        }
    }

    /// A line for programs, and lines for people.
    pub fn print(&self) -> Result<()> {
        for (name, value) in &self.measures.measures {
            eprintln!("{} {} MiB: {name} {value}", self.workload, self.mib);
        }
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}
