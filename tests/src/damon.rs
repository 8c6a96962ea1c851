// SPDX-License-Identifier: GPL-2.0

//! DAMON, watching how often a process touches its memory.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::control_file::{read, write};

const DIRECTORY: &str = "/sys/kernel/mm/damon/admin/kdamonds";

/// How often it looks.
const LOOK: Duration = Duration::from_millis(50);
/// The looks that it sums up.
pub const LOOKS: u32 = 10;

/// Whether this kernel has it.
pub fn is_present() -> bool {
    Path::new(DIRECTORY).exists()
}

/// As long as this lives, it watches a process.
pub struct Damon;

/// Addresses in which a page was found touched in so many of the last [`LOOKS`] looks.
#[derive(Debug)]
pub struct Found {
    /// Pages that it takes for alike.
    pub addresses: Range<usize>,
    /// Looks in which the page that it had drawn was touched.
    pub touched: u32,
}

impl Damon {
    /// Watches `ranges` of the process `pid`, which do not overlap.
    pub fn watch(pid: u32, mut ranges: Vec<Range<usize>>) -> Result<Self> {
        // It takes them in their order only.
        ranges.sort_by_key(|range| range.start);
        write(Path::new(DIRECTORY).join("nr_kdamonds"), 1)?;
        let damon = Self;
        write(Self::file("contexts/nr_contexts"), 1)?;
        let context = Self::file("contexts/0");
        write(context.join("operations"), "fvaddr")?;
        let intervals = context.join("monitoring_attrs/intervals");
        write(intervals.join("sample_us"), LOOK.as_micros())?;
        write(
            intervals.join("aggr_us"),
            LOOK.as_micros() * u128::from(LOOKS),
        )?;
        write(context.join("targets/nr_targets"), 1)?;
        let target = context.join("targets/0");
        write(target.join("pid_target"), pid)?;
        write(target.join("regions/nr_regions"), ranges.len())?;
        for (number, range) in ranges.iter().enumerate() {
            let region = target.join(format!("regions/{number}"));
            write(region.join("start"), range.start)?;
            write(region.join("end"), range.end)?;
        }
        report_all(&context)?;
        write(Self::file("state"), "on")?;
        Ok(damon)
    }

    /// What it has found in the last looks.
    pub fn found(&self) -> Result<Vec<Found>> {
        write(Self::file("state"), "update_schemes_tried_regions")?;
        let mut found = Vec::new();
        for entry in fs::read_dir(Self::file("contexts/0/schemes/0/tried_regions"))? {
            let region = entry?.path();
            if region.is_dir() {
                found.push(Found {
                    addresses: read(region.join("start"))?..read(region.join("end"))?,
                    touched: read(region.join("nr_accesses"))?,
                });
            }
        }
        Ok(found)
    }

    fn file(name: &str) -> PathBuf {
        Path::new(DIRECTORY).join("0").join(name)
    }
}

impl Drop for Damon {
    fn drop(&mut self) {
        // If it is off already, there is nothing to be done.
        let _ = write(Self::file("state"), "off");
        let _ = write(Path::new(DIRECTORY).join("nr_kdamonds"), 0);
    }
}

/// Has it do nothing with regions of any kind, but tell of them.
fn report_all(context: &Path) -> Result<()> {
    write(context.join("schemes/nr_schemes"), 1)?;
    let scheme = context.join("schemes/0");
    write(scheme.join("action"), "stat")?;
    for property in ["sz", "nr_accesses", "age"] {
        let range = scheme.join("access_pattern").join(property);
        write(range.join("min"), 0)?;
        write(range.join("max"), u32::MAX)?;
    }
    Ok(())
}
