// SPDX-License-Identifier: GPL-2.0

//! Counters of KSM, in all and for each process.

use std::fs;

use anyhow::{anyhow, Result};
use procfs::process::{self, Process};
use serde::Serialize;

use crate::{
    kernel::Ksm,
    processes::{self, Named},
};

/// The name of KSM's thread.
const THREAD: &str = "ksmd";

/// Counters of KSM. Pages are of 4 KiB.
#[derive(Clone, Debug, Serialize)]
pub struct Statistics {
    /// 0: at rest; 1: scanning; 2: everything was unmerged.
    pub run: u64,
    /// Frames that are shared.
    pub shared: u64,
    /// Pages that are saved.
    pub sharing: u64,
    /// Pages that have not changed, and have no equal.
    pub unshared: u64,
    /// Pages that change.
    pub volatile: u64,
    /// Pages of zeros that are saved by the zero page.
    pub zero: u64,
    /// Bytes that are saved, less bytes of records.
    pub profit: i64,
    /// Scans of all memory.
    pub full_scans: u64,
    /// Pages scanned, in all.
    pub scanned: u64,
    /// The pace: pages of a step, and milliseconds between two steps.
    pub pages_to_scan: u64,
    /// See `pages_to_scan`.
    pub sleep_millisecs: u64,
    /// Seconds of a CPU that `ksmd` has taken.
    pub cpu_seconds: f64,
}

impl Statistics {
    /// Reads them. A counter that this KSM does not have is 0.
    pub fn read(ksm: &Ksm, thread: Option<&Process>) -> Result<Self> {
        let number = |name: &str| -> Result<i64> {
            let text = ksm.read(name)?.unwrap_or_else(|| "0".into());
            text.parse()
                .map_err(|_| anyhow!("{name} holds no number but {text:?}"))
        };
        let count = |name: &str| -> Result<u64> { Ok(number(name)?.try_into().unwrap_or(0)) };
        Ok(Self {
            run: count("run")?,
            shared: count("pages_shared")?,
            sharing: count("pages_sharing")?,
            unshared: count("pages_unshared")?,
            volatile: count("pages_volatile")?,
            zero: count("ksm_zero_pages")?,
            profit: number("general_profit")?,
            full_scans: count("full_scans")?,
            scanned: count("pages_scanned")?,
            pages_to_scan: count("pages_to_scan")?,
            sleep_millisecs: count("sleep_millisecs")?,
            cpu_seconds: thread.map_or(0.0, cpu_seconds),
        })
    }
}

/// KSM's thread, if it runs.
pub fn thread() -> Option<Process> {
    let mut processes = process::all_processes().ok()?.filter_map(Result::ok);
    processes.find(|process| {
        let status = process.stat();
        status.is_ok_and(|status| status.comm == THREAD && status.vsize == 0)
    })
}

fn cpu_seconds(thread: &Process) -> f64 {
    let ticks = thread
        .stat()
        .map_or(0, |status| status.utime + status.stime);
    ticks as f64 / procfs::ticks_per_second() as f64
}

/// Counters of KSM for a process.
#[derive(Clone, Debug, Serialize)]
pub struct OfProcess {
    /// The process.
    #[serde(flatten)]
    pub process: Named,
    /// Its pages that KSM shares.
    pub merged: u64,
    /// Its pages of zeros that KSM has replaced.
    pub zero: u64,
    /// Pages that KSM keeps a record of.
    pub records: u64,
    /// Bytes that merging its pages saves, less bytes of records.
    pub profit: i64,
}

/// The counters of all processes that KSM has anything to do with.
///
/// One that ends meanwhile, or that only root may look at, is left out.
pub fn of_processes() -> Result<Vec<OfProcess>> {
    Ok(processes::numbers()?.filter_map(of_process).collect())
}

/// Of most processes there is nothing to tell, so these are not named first.
fn of_process(pid: i32) -> Option<OfProcess> {
    let text = fs::read_to_string(format!("/proc/{pid}/ksm_stat")).ok()?;
    let is_known = [RECORDS, MERGED, ZERO]
        .iter()
        .any(|name| number(&text, name) > 0);
    if !is_known {
        return None;
    }
    Some(parse(processes::find(pid)?, &text))
}

const RECORDS: &str = "ksm_rmap_items ";
const MERGED: &str = "ksm_merging_pages ";
const ZERO: &str = "ksm_zero_pages ";
const PROFIT: &str = "ksm_process_profit ";

/// The number in the line that begins with `name`, or 0.
fn number(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn parse(process: Named, text: &str) -> OfProcess {
    let count = |name: &str| number(text, name).try_into().unwrap_or(0);
    OfProcess {
        process,
        merged: count(MERGED),
        zero: count(ZERO),
        records: count(RECORDS),
        profit: number(text, PROFIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_understood() {
        let text = "ksm_rmap_items 76800\nksm_zero_pages 5\nksm_merging_pages 76483\n\
                    ksm_process_profit -309329664\nksm_merge_any: no\nksm_mergeable: yes\n";
        let named = Named {
            pid: 1,
            name: "init".into(),
            group: None,
            domain: None,
        };
        let of = parse(named, text);
        assert_eq!(
            (of.records, of.zero, of.merged, of.profit),
            (76800, 5, 76483, -309329664)
        );
    }
}
