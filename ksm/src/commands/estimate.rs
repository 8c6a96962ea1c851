// SPDX-License-Identifier: GPL-2.0

//! `ksm estimate`: what would merging save?

use std::{
    io::Write,
    time::{Duration, Instant},
};

use anyhow::{ensure, Result};
use comfy_table::Table;
use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    cli::Estimate,
    estimate::{
        collect::{Collector, Scope},
        report::{report, Report},
    },
    kernel::Ksm,
    pages::PAGE_SIZE,
    processes::{self, Named},
    tables::{bytes, of_pairs, percent, table, ROWS},
};

/// The kernel's own limit, where there is no KSM to ask.
const USUAL_LIMIT: u64 = 256;

#[derive(Serialize)]
struct Output {
    #[serde(flatten)]
    report: Report,
    read: Reading,
}

/// How the memory was read.
#[derive(Serialize)]
struct Reading {
    seconds: f64,
    cpu_seconds: f64,
}

/// Reads the memory of processes, and says what merging it would save.
///
/// # Errors
///
/// A process that was asked for cannot be read.
pub fn run(estimate: &Estimate, json: bool, out: &mut dyn Write) -> Result<()> {
    ensure!(
        (1..=100).contains(&estimate.max_cpu),
        "--max-cpu is a percentage from 1 to 100"
    );
    let wanted = processes::wanted(&estimate.pids)?;
    let scope = if estimate.advised {
        Scope::Advised
    } else {
        Scope::Private
    };
    let collector = Collector::new(scope, estimate.max_cpu);
    let began = (Instant::now(), cpu_time());
    let (read, collected) = read_all(collector, wanted, estimate.pids.is_empty())?;
    let reading = Reading {
        seconds: began.0.elapsed().as_secs_f64(),
        cpu_seconds: (cpu_time() - began.1).as_secs_f64(),
    };
    let report = report(collected, &read, sharing_limit());
    if json {
        let output = Output {
            report,
            read: reading,
        };
        writeln!(out, "{}", serde_json::to_string(&output)?)?;
    } else {
        print(&report, &reading, out)?;
    }
    Ok(())
}

/// Reads the processes; returns those that could be read as well.
///
/// Of all processes some may end before they are read, or be out of reach.
fn read_all(
    mut collector: Collector,
    wanted: Vec<Named>,
    all: bool,
) -> Result<(Vec<Named>, crate::estimate::collect::Collected)> {
    let mut read = Vec::new();
    let mut work = Vec::new();
    for process in wanted {
        match collector.ranges(process.pid) {
            Ok(ranges) => work.push((process, ranges)),
            Err(_) if all => {}
            Err(error) => return Err(error),
        }
    }
    let lengths = work
        .iter()
        .flat_map(|(_, ranges)| ranges)
        .map(|range| range.end - range.start);
    let bar = progress_bar(lengths.sum());
    for (process, ranges) in work {
        match collector.read(process.pid, &ranges, |bytes| bar.inc(bytes)) {
            Ok(()) => read.push(process),
            Err(_) if all => {}
            Err(error) => return Err(error),
        }
    }
    bar.finish_and_clear();
    ensure!(!read.is_empty(), "no process could be read (are you root?)");
    Ok((read, collector.finish()))
}

/// On a terminal only.
fn progress_bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{wide_bar} {binary_bytes} of {binary_total_bytes} of addresses, {eta} left",
    );
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn sharing_limit() -> u64 {
    let value = Ksm::open()
        .and_then(|ksm| ksm.read("max_page_sharing"))
        .ok()
        .flatten();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(USUAL_LIMIT)
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let ticks = procfs::process::Process::myself().and_then(|process| process.stat());
    let ticks = ticks.map_or(0, |stat| stat.utime + stat.stime);
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

fn print(report: &Report, reading: &Reading, out: &mut dyn Write) -> Result<()> {
    print_sums(report, out)?;
    print_costs(report, reading, out)?;
    writeln!(
        out,
        "\n{}\n\n{}",
        table_of_processes(report),
        of_pairs(&report.pairs, "have in common")
    )?;
    Ok(())
}

fn print_sums(report: &Report, out: &mut dyn Write) -> Result<()> {
    let lines = [
        ("memory that KSM could merge", bytes(report.pages)),
        (
            "merging would save",
            format!(
                "{} ({})",
                bytes(report.saved),
                percent(report.saved, report.pages)
            ),
        ),
        (
            "  with use_zero_pages=1, moreover",
            bytes(report.saved_by_zero_page),
        ),
        ("saved already (fork or KSM)", bytes(report.shared_already)),
        ("pages of zeros", bytes(report.zeros)),
        (
            "in huge pages that would be split",
            bytes(report.equal_in_huge),
        ),
        ("in swap, not looked at", bytes(report.swapped)),
    ];
    for (name, value) in lines {
        writeln!(out, "{name:<36}{value:>12}")?;
    }
    Ok(())
}

fn print_costs(report: &Report, reading: &Reading, out: &mut dyn Write) -> Result<()> {
    writeln!(
        out,
        "\nonce merged, a full scan takes {:.1} s of a CPU with the kernel's own KSM, {:.1} s with ksm_rs\n\
         (by the benchmark of ksm_rs, on an AMD EPYC, with smart_scan=0)",
        report.scan_seconds.mainline, report.scan_seconds.ksm_rs
    )?;
    writeln!(
        out,
        "read in {:.1} s, {}/s, {:.0} % of a CPU{}",
        reading.seconds,
        BinaryBytes((report.pages as f64 * PAGE_SIZE as f64 / reading.seconds) as u64),
        100.0 * reading.cpu_seconds / reading.seconds,
        match report.ended {
            0 => String::new(),
            ended => format!("; {ended} processes ended meanwhile"),
        }
    )?;
    Ok(())
}

fn table_of_processes(report: &Report) -> Table {
    let mut table = table(
        &[
            "PID",
            "name",
            "unit or container",
            "memory",
            "zeros",
            "saves",
        ],
        3,
    );
    for of in report.processes.iter().take(ROWS) {
        table.add_row([
            of.process.pid.to_string(),
            of.process.name.clone(),
            of.process.group.clone().unwrap_or_default(),
            bytes(of.pages),
            bytes(of.zeros),
            bytes(of.saved as u64),
        ]);
    }
    table
}
