// SPDX-License-Identifier: GPL-2.0

//! The files that the benchmark has written.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::Deserialize;

/// How many times better Rust is than C.
#[derive(Clone, Copy, Deserialize)]
pub struct Ratio {
    pub median: f64,
    pub lowest: f64,
    pub highest: f64,
}

/// Medians of all rounds.
#[derive(Deserialize)]
struct Medians {
    c: BTreeMap<String, f64>,
    rs: BTreeMap<String, f64>,
}

/// Of each round, the curves by their names.
#[derive(Default, Deserialize)]
struct Curves {
    #[serde(default)]
    c: Vec<BTreeMap<String, Vec<f64>>>,
    #[serde(default)]
    rs: Vec<BTreeMap<String, Vec<f64>>>,
}

/// One workload at one size.
#[derive(Deserialize)]
struct Record {
    workload: String,
    mib: usize,
    lane: String,
    medians: Medians,
    #[serde(default)]
    curves: Curves,
    ratios: BTreeMap<String, Ratio>,
    goals: BTreeMap<String, f64>,
}

/// What a measure came to.
#[derive(Clone, Copy)]
pub struct Finding {
    pub c: f64,
    pub rs: f64,
    pub ratio: Option<Ratio>,
    pub goal: Option<f64>,
}

/// All results of one lane.
pub struct Results(BTreeMap<(String, usize), Record>);

impl Results {
    pub fn load(directory: &Path, lane: &str) -> Result<Self> {
        let mut records = BTreeMap::new();
        let entries = fs::read_dir(directory)
            .with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "json") {
                let record = read(&path)?;
                if record.lane == lane {
                    records.insert((record.workload.clone(), record.mib), record);
                }
            }
        }
        Ok(Self(records))
    }

    /// The size at which there are most workloads.
    pub fn usual_size(&self) -> Option<usize> {
        let mut workloads = BTreeMap::new();
        for (_, mib) in self.0.keys() {
            *workloads.entry(*mib).or_insert(0) += 1;
        }
        let most = workloads.into_iter().max_by_key(|(_, count)| *count);
        most.map(|(mib, _)| mib)
    }

    pub fn find(&self, workload: &str, mib: usize, measure: &str) -> Option<Finding> {
        let record = self.0.get(&(workload.to_owned(), mib))?;
        Some(Finding {
            c: *record.medians.c.get(measure)?,
            rs: *record.medians.rs.get(measure)?,
            ratio: record.ratios.get(measure).copied(),
            goal: record.goals.get(measure).copied(),
        })
    }

    /// Curves of C and Rust, if there are any: the medians of all rounds, scan by scan.
    pub fn curves(&self, workload: &str, mib: usize, name: &str) -> Option<(Vec<f64>, Vec<f64>)> {
        let Curves { c, rs } = &self.0.get(&(workload.to_owned(), mib))?.curves;
        Some((medians(c, name)?, medians(rs, name)?))
    }

    /// The sizes at which a workload was run.
    pub fn sizes(&self, workload: &str) -> Vec<usize> {
        let sizes = self.0.keys().filter(|(name, _)| name == workload);
        sizes.map(|(_, mib)| *mib).collect()
    }
}

fn medians(rounds: &[BTreeMap<String, Vec<f64>>], name: &str) -> Option<Vec<f64>> {
    let curves: Vec<_> = rounds.iter().filter_map(|round| round.get(name)).collect();
    let length = curves.iter().map(|curve| curve.len()).min()?;
    let median = |at| {
        let mut values: Vec<f64> = curves.iter().map(|curve| curve[at]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Some((0..length).map(median).collect())
}

fn read(path: &Path) -> Result<Record> {
    let text = fs::read_to_string(path)?;
    serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))
}
