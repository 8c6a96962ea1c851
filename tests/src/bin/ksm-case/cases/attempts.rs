// SPDX-License-Identifier: GPL-2.0

//! What the scanner tries, and what it does not: an attempt to merge empties a page table entry and
//! flushes it from all TLBs, so none is made for a page that has no equal.

use std::collections::BTreeMap;

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Scanner},
    pattern,
    peer::Peer,
    region::Region,
    tracing::Events,
    PAGE_SIZE,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{holder, join_all, step, verify_all},
};

pub const CASES: &[Case] = &[
    Case::new(
        "attempt-changed",
        "pages that were like a KSM page, and have changed, cost no attempt to merge them",
        changed,
    ),
    Case::new(
        "attempt-byte",
        "pages that have changed in one byte cost an attempt at most once in a while",
        changed_in_one_byte,
    ),
    Case::new(
        "attempt-parted",
        "pages that a write has parted from a KSM page cost no attempt to merge them",
        parted,
    ),
    Case::new(
        "attempt-gone",
        "a page that has just ended does not keep its equals from meeting",
        gone,
    ),
];

const PAGES: usize = 64;

/// Records attempts to merge.
fn record() -> Result<Events> {
    if !Events::exist("ksm")? {
        return Err(Skip("this kernel has no trace events".into()).into());
    }
    Events::record_times("ksm", &["ksm_merge_with_ksm_page", "ksm_merge_one_page"])
}

/// How many attempts were in vain so far; fails if all were.
fn count_in_vain(events: &Events) -> Result<usize> {
    let mut in_vain = BTreeMap::<String, usize>::new();
    let mut good = 0;
    events.for_each(|event| match event.text.ends_with("error 0") {
        true => good += 1,
        false => *in_vain.entry(event.name).or_default() += 1,
    })?;
    events.ensure_all_are_kept()?;
    ensure!(good > 0, "there was no good attempt at all");
    step(format!("{good} good attempts, in vain: {in_vain:?}"));
    Ok(in_vain.values().sum())
}

fn ensure_none_in_vain(events: &Events) -> Result<()> {
    let in_vain = count_in_vain(events)?;
    ensure!(in_vain == 0, "attempts in vain: {in_vain}");
    Ok(())
}

fn changed(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let events = record()?;
    let content = [pattern::pages(1, PAGES), vec![0; PAGE_SIZE]].concat();
    let _kept = Region::mergeable(&content.repeat(2))?;
    let shared = PAGES as u64 + 1;
    scanner.expect(Counters::stable(shared, shared, 0))?;
    for use_zero_pages in [0, 1] {
        ksm::write("use_zero_pages", use_zero_pages)?;
        scanner.scan_on_demand()?;
        step("more pages of that content are scanned once, and rewritten");
        let mut region = Region::mergeable(&content)?;
        scanner.scan_once()?;
        let other = pattern::pages(2, PAGES + 1);
        region.bytes_mut().copy_from_slice(&other);
        for _ in 0..3 {
            scanner.scan_once()?;
        }
        region.verify(&other)?;
        ensure_none_in_vain(&events)?;
    }
    Ok(())
}

fn changed_in_one_byte(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let events = record()?;
    let content = [pattern::pages(6, PAGES), vec![0; PAGE_SIZE]].concat();
    let _kept = Region::mergeable(&content.repeat(2))?;
    let shared = PAGES as u64 + 1;
    scanner.expect(Counters::stable(shared, shared, 0))?;
    scanner.scan_on_demand()?;
    let mut changed = content.clone();
    for place in [0, PAGE_SIZE / 2, PAGE_SIZE - 1] {
        step(format!(
            "more pages of that content are scanned once; then byte {place} of each changes"
        ));
        let mut region = Region::mergeable(&content)?;
        scanner.scan_once()?;
        for index in 0..region.pages() {
            region.page_mut(index)[place] ^= 1;
            changed[index * PAGE_SIZE + place] ^= 1;
        }
        for _ in 0..3 {
            scanner.scan_once()?;
        }
        region.verify(&changed)?;
        changed.copy_from_slice(&content);
    }
    let in_vain = count_in_vain(&events)?;
    ensure!(in_vain <= 3, "attempts in vain: {in_vain}");
    Ok(())
}

fn parted(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let events = record()?;
    let content = pattern::pages(3, PAGES);
    let _kept = Region::mergeable(&content.repeat(2))?;
    let mut region = Region::mergeable(&content)?;
    let (shared, sharing) = (PAGES as u64, 2 * PAGES as u64);
    scanner.expect(Counters::stable(shared, sharing, 0))?;
    scanner.scan_on_demand()?;
    step("a third of the mappings is written to");
    let other = pattern::pages(4, PAGES);
    region.bytes_mut().copy_from_slice(&other);
    for _ in 0..3 {
        scanner.scan_once()?;
    }
    region.verify(&other)?;
    ensure_none_in_vain(&events)
}

fn gone(_: &Options) -> Result<()> {
    const PAIRS: usize = 8;
    /// So few that the unstable tree stays as it is when there are three times as many.
    const PAGES: usize = 8;
    const ALL: u64 = (PAIRS * PAGES) as u64;
    let scanner = Scanner::start()?;
    scanner.scan_on_demand()?;
    let content = |pair| pattern::pages(100 + pair as u64, PAGES);
    let (mut ending, mut staying) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // Address spaces are scanned in the order of where the kernel keeps them: one or the other
        // half of those that stay come before those that end.
        if pair % 2 == 0 {
            ending.push(holder(&content(pair), 1)?);
        }
        staying.push(late_holder(content(pair).repeat(2))?);
        if pair % 2 == 1 {
            ending.push(holder(&content(pair), 1)?);
        }
    }
    scanner.scan_once()?;
    verify_all(&mut staying)?;
    scanner.scan_once()?;
    let waiting = ksm::counters()?;
    let expected = Counters {
        volatile: 2 * ALL,
        ..Counters::stable(0, 0, ALL)
    };
    ensure!(
        waiting == expected,
        "expected {expected}, but found {waiting}"
    );
    step("processes whose pages wait in the unstable tree end; their equals are looked up");
    for peer in ending {
        peer.kill()?;
    }
    scanner.scan_once()?;
    let now = ksm::counters()?;
    ensure!(
        now == Counters::stable(ALL, ALL, 0),
        "turned away by pages that are gone: {now}"
    );
    verify_all(&mut staying)?;
    join_all(staying)
}

/// A process that holds `content` in advised memory from the first round on, and verifies it in the
/// second.
fn late_holder(content: Vec<u8>) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        link.step()?;
        link.await_step()?;
        let region = Region::mergeable(&content)?;
        link.step()?;
        link.await_step()?;
        region.verify(&content)?;
        link.step()
    })?;
    peer.await_step()?;
    Ok(peer)
}
