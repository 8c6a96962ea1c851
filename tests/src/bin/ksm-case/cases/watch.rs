// SPDX-License-Identifier: GPL-2.0

//! What people look at: `/proc`, page flags, events.

use std::{collections::BTreeMap, os::unix::fs::FileExt};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Counters, Run, Scanner},
    merge_any, pagemap, pattern,
    peer::Peer,
    procfs::{self, KsmStat},
    region::Region,
    tracing::{Event, Events},
    PAGE_SIZE,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_merging_pages, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "ksm-stat",
        "/proc/PID/ksm_stat has mainline's lines in mainline's order, with the right values",
        ksm_stat,
    ),
    Case::new(
        "smaps-ksm",
        "smaps tells the size of merged memory and the advice",
        smaps,
    ),
    Case::new(
        "page-flags",
        "kpageflags tells which frames are KSM's, and kpagecount how many map them",
        page_flags,
    ),
    Case::new(
        "vmstat-cow-ksm",
        "a write to a merged page counts in vmstat's cow_ksm",
        cow_ksm,
    ),
    Case::new(
        "tracepoints",
        "all ksm events have mainline's fields, and are seen when they should be",
        tracepoints,
    ),
];

const PAGES: usize = 16;

/// The lines that mainline has; a line of our own would come after these.
const KSM_STAT: &[&str] = &[
    "ksm_rmap_items ",
    "ksm_zero_pages ",
    "ksm_merging_pages ",
    "ksm_process_profit ",
    "ksm_merge_any: ",
    "ksm_mergeable: ",
];

fn ksm_stat(_: &Options) -> Result<()> {
    // Before the scanner's own advised memory exists, which a child would inherit.
    Peer::fork(|_| {
        check_lines("0", "0", "no", "no")?;
        merge_any::set(true)?;
        check_lines("0", "0", "yes", "yes")
    })?
    .join()?;
    let scanner = Scanner::prepare()?;
    let content = pattern::pages(1, PAGES);
    let left = Region::mergeable(&content)?;
    check_lines("0", "0", "no", "yes")?;
    ksm::set_run(Run::Merge)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(16, 16, 0))?;
    check_lines("32", "32", "no", "yes")?;
    let stat = KsmStat::read("self")?;
    let merged = (2 * PAGES * PAGE_SIZE) as i64;
    step(format!("profit: {} of {merged} bytes", stat.profit));
    // A page's record takes a number of bytes that is ours to choose, but not so many.
    let records = merged - stat.profit;
    ensure!(
        records > 0 && records <= 32 * 64,
        "{records} bytes of records"
    );
    drop((left, right));
    scanner.expect(Counters::ZERO)?;
    ensure_merging_pages(0)
}

fn check_lines(items: &str, merging: &str, any: &str, mergeable: &str) -> Result<()> {
    let text = control_file::read_text("/proc/self/ksm_stat")?;
    let mut values = BTreeMap::new();
    let mut lines = text.lines();
    for key in KSM_STAT {
        let line = lines
            .next()
            .with_context(|| format!("no line {key}: {text:?}"))?;
        let value = line.strip_prefix(key);
        values.insert(
            *key,
            value.with_context(|| format!("{line:?} is not {key}"))?,
        );
    }
    for (key, expected) in [
        ("ksm_rmap_items ", items),
        ("ksm_zero_pages ", "0"),
        ("ksm_merging_pages ", merging),
        ("ksm_merge_any: ", any),
        ("ksm_mergeable: ", mergeable),
    ] {
        ensure!(
            values[key] == expected,
            "{key}{} and not {expected}",
            values[key]
        );
    }
    Ok(())
}

fn smaps(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut content = pattern::pages(2, PAGES);
    // Some pages without an equal.
    let other = pattern::pages(3, PAGES);
    let left = Region::mergeable(&[&content[..], &other].concat())?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(16, 16, 16))?;
    for (region, kib) in [(&left, 64), (&right, 64)] {
        let shown = procfs::smaps_kib(region, "KSM")?;
        ensure!(shown == kib, "smaps says KSM: {shown} kB and not {kib} kB");
        ensure!(procfs::is_mergeable(region)?, "no mg in smaps");
    }
    step("unmerged, nothing is left");
    ksm::set_run(Run::Unmerge)?;
    for region in [&left, &right] {
        let shown = procfs::smaps_kib(region, "KSM")?;
        ensure!(shown == 0, "smaps says KSM: {shown} kB after run=2");
    }
    content.extend(&other);
    left.verify(&content)
}

/// How many page table entries map the frame.
fn map_count(frame: u64) -> Result<u64> {
    let file = std::fs::File::open("/proc/kpagecount").context("kpagecount")?;
    let mut count = [0; 8];
    file.read_exact_at(&mut count, frame * 8)?;
    Ok(u64::from_ne_bytes(count))
}

fn page_flags(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, PAGES);
    let mut regions = (0..3)
        .map(|_| Region::with_content(&content))
        .collect::<Result<Vec<_>>>()?;
    for frame in pagemap::frames(&regions[0])? {
        ensure!(!pagemap::is_ksm(frame)?, "flagged too early");
    }
    regions.iter().try_for_each(Region::advise_mergeable)?;
    scanner.expect(Counters::stable(16, 32, 0))?;
    for frame in pagemap::frames(&regions[0])? {
        ensure!(
            pagemap::is_ksm(frame)?,
            "frame {frame:#x} is not flagged KSM"
        );
        let count = map_count(frame)?;
        ensure!(count == 3, "frame {frame:#x} is mapped {count} times");
    }
    regions[1].page_mut(0)[0] ^= 1;
    let frames = pagemap::frames(&regions[0])?;
    ensure!(map_count(frames[0])? == 2, "a write did not end a mapping");
    ensure!(
        !pagemap::is_ksm(pagemap::frames(&regions[1])?[0])?,
        "a written page is KSM's"
    );
    Ok(())
}

fn cow_ksm(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(6, PAGES);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(16, 16, 0))?;
    ksm::set_run(Run::Stop)?;
    let before = procfs::vmstat("cow_ksm")?;
    for index in 0..PAGES {
        left.page_mut(index)[0] ^= 1;
    }
    let rose = procfs::vmstat("cow_ksm")? - before;
    ensure!(
        rose == PAGES as i64,
        "cow_ksm rose by {rose}, not by {PAGES}"
    );
    step("reading counts nothing");
    right.verify(&content)?;
    ensure!(
        procfs::vmstat("cow_ksm")? - before == rose,
        "reading counts"
    );
    Ok(())
}

/// Every event, and its fields, as include/trace/events/ksm.h has them.
const EVENTS: &[(&str, &[&str])] = &[
    (
        "ksm_advisor",
        &["scan_time", "pages_to_scan", "cpu_percent"],
    ),
    ("ksm_enter", &["mm"]),
    ("ksm_exit", &["mm"]),
    ("ksm_merge_one_page", &["pfn", "rmap_item", "mm", "err"]),
    (
        "ksm_merge_with_ksm_page",
        &["ksm_page", "pfn", "rmap_item", "mm", "err"],
    ),
    ("ksm_remove_ksm_page", &["pfn"]),
    ("ksm_remove_rmap_item", &["pfn", "rmap_item", "mm"]),
    ("ksm_start_scan", &["seq", "rmap_entries"]),
    ("ksm_stop_scan", &["seq", "rmap_entries"]),
];

fn tracepoints(_: &Options) -> Result<()> {
    if !Events::exist("ksm")? {
        return Err(Skip("this kernel has no trace events".into()).into());
    }
    let events = Events::record("ksm")?;
    let names: Vec<_> = EVENTS.iter().map(|(name, _)| *name).collect();
    ensure!(
        events.names()? == names,
        "the events are {:?}",
        events.names()?
    );
    for (name, fields) in EVENTS {
        ensure!(
            events.fields(name)? == *fields,
            "{name} has {:?}",
            events.fields(name)?
        );
    }
    step("mainline's nine events, with mainline's fields");
    cause_events()?;
    let mut seen = BTreeMap::<String, Vec<String>>::new();
    for Event { name, text, .. } in events.seen()? {
        seen.entry(name).or_default().push(text);
    }
    for (name, texts) in &seen {
        step(format!("{name} {} times: {}", texts.len(), texts[0]));
    }
    for (name, _) in EVENTS {
        // Whether this one is seen depends on how a page went away.
        if *name != "ksm_remove_rmap_item" {
            ensure!(seen.contains_key(*name), "{name} was not seen");
        }
    }
    ensure!(
        seen["ksm_start_scan"]
            .iter()
            .all(|text| is_like(text, "seq # rmap size #")),
        "strange: {:?}",
        seen["ksm_start_scan"]
    );
    let merges = &seen["ksm_merge_with_ksm_page"];
    ensure!(
        merges
            .iter()
            .any(|text| is_like(text, "ksm pfn # rmap_item * mm * error 0")),
        "no good merge with a KSM page: {merges:?}"
    );
    let zeros = &seen["ksm_merge_one_page"];
    ensure!(
        zeros
            .iter()
            .any(|text| is_like(text, "ksm pfn # rmap_item * mm * error 0")),
        "no good merge with the zero page: {zeros:?}"
    );
    Ok(())
}

/// Compares word by word: `#` stands for a number, `*` for any word.
fn is_like(text: &str, pattern: &str) -> bool {
    let (words, wanted): (Vec<_>, Vec<_>) = (
        text.split_whitespace().collect(),
        pattern.split_whitespace().collect(),
    );
    words.len() == wanted.len()
        && words.iter().zip(wanted).all(|(word, wanted)| match wanted {
            "#" => word.parse::<i64>().is_ok(),
            "*" => true,
            other => *word == other,
        })
}

fn cause_events() -> Result<()> {
    let scanner = Scanner::start()?;
    // A scan of so little memory without a rest would fill the buffer with its own two events.
    ksm::write("sleep_millisecs", 10)?;
    ksm::write("use_zero_pages", 1)?;
    Peer::fork(|link| {
        let content = pattern::pages(7, PAGES);
        let _left = Region::mergeable(&content)?;
        let _right = Region::mergeable(&content)?;
        let _third = Region::mergeable(&content)?;
        let mut zeros = Region::mergeable(&content)?;
        zeros.bytes_mut().fill(0);
        link.step()?;
        link.await_step()
    })
    .and_then(|mut peer| {
        peer.await_step()?;
        scanner.settle()?;
        peer.step()?;
        peer.join()
    })?;
    scanner.settle()?;
    let content = pattern::pages(8, PAGES);
    let _left = Region::mergeable(&content)?;
    let _right = Region::mergeable(&content)?;
    ksm::write("advisor_mode", "scan-time")?;
    scanner.scans(4)?;
    ksm::write("advisor_mode", "none")?;
    ksm::set_run(Run::Unmerge)
}
