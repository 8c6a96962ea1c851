// SPDX-License-Identifier: GPL-2.0

//! Pages with equal contents merge, and the counters say so exactly.

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Scanner},
    pattern,
    peer::Peer,
    procfs::{self, KsmStat},
    region::Region,
    PAGE_SIZE,
};

use crate::{
    case::{Case, Options},
    helpers::{ensure_merging_pages, ensure_shared, holders, join_all, step, verify_all},
};

pub const CASES: &[Case] = &[
    Case::new(
        "merge-mappings",
        "two mappings of one process with equal pages merge",
        merge_mappings,
    ),
    Case::new(
        "merge-processes",
        "equal pages of five processes merge",
        merge_processes,
    ),
    Case::new(
        "merge-one-content",
        "200 equal pages become one",
        merge_one_content,
    ),
    Case::new(
        "merge-mixed",
        "pages with an equal merge, pages without stay as they are",
        merge_mixed,
    ),
    Case::new(
        "merge-latecomer",
        "pages that appear later join those that are merged already",
        merge_latecomer,
    ),
    Case::new(
        "merge-waiting",
        "a page merges with one that has waited for it, behind it in the same batch",
        merge_waiting,
    ),
    Case::new(
        "merge-frames",
        "merged pages share a frame that is flagged KSM, and smaps shows mg",
        merge_frames,
    ),
    Case::new(
        "merge-unadvised",
        "equal pages that nobody advised stay apart",
        merge_unadvised,
    ),
    Case::new(
        "merge-volatile",
        "pages that keep changing are volatile and never merge",
        merge_volatile,
    ),
];

const PAGES: usize = 64;

fn merge_mappings(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;

    step("both mappings of 64 pages merge, page by page");
    scanner.expect(Counters::stable(64, 64, 0))?;
    left.verify(&content)?;
    right.verify(&content)?;

    step("the process's own account agrees");
    ensure_merging_pages(2 * PAGES)?;
    let items = KsmStat::read("self")?.rmap_items;
    ensure!(items == 128, "ksm_rmap_items is {items}, not 128");
    Ok(())
}

fn merge_processes(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, PAGES);
    let mut peers = holders(5, &content, 1)?;

    step("64 frames are left of 320");
    scanner.expect(Counters::stable(64, 4 * 64, 0))?;
    for peer in &peers {
        let merging = procfs::merging_pages(peer.pid())?;
        ensure!(merging == 64, "{} merges {merging} pages", peer.pid());
    }

    step("every process still reads what it wrote");
    verify_all(&mut peers)?;
    join_all(peers)
}

fn merge_one_content(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::page(3, 0).repeat(200);
    let region = Region::mergeable(&content)?;

    scanner.expect(Counters::stable(1, 199, 0))?;
    region.verify(&content)
}

fn merge_mixed(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let common = pattern::pages(4, PAGES);
    let unique = pattern::pages(5, 40);
    let mut content = common.clone();
    content.extend(&unique);
    let mixed = Region::mergeable(&content)?;
    let pure = Region::mergeable(&common)?;

    scanner.expect(Counters::stable(64, 64, 40))?;
    mixed.verify(&content)?;
    pure.verify(&common)
}

fn merge_latecomer(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(6, PAGES);
    let first = Region::mergeable(&content)?;
    step("alone, no page has an equal");
    scanner.expect(Counters::stable(0, 0, 64))?;

    let second = Region::mergeable(&content)?;
    step("with a second mapping, all merge");
    scanner.expect(Counters::stable(64, 64, 0))?;

    let third = Region::mergeable(&content)?;
    step("a third one joins");
    scanner.expect(Counters::stable(64, 128, 0))?;

    [first, second, third]
        .iter()
        .try_for_each(|region| region.verify(&content))
}

fn merge_waiting(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    scanner.scan_on_demand()?;
    for seed in 0..4 {
        let mut region = Region::mergeable(&pattern::pages(20 + seed, 2))?;
        step("two pages without an equal wait for one");
        for _ in 0..3 {
            scanner.scan_once()?;
        }
        let content = region.page(1).to_vec();
        region.page_mut(0).copy_from_slice(&content);
        step("the first becomes the equal of the second: one scan sees that, the next merges them");
        scanner.scan_once()?;
        scanner.scan_once()?;
        let now = ksm::counters()?;
        ensure!(now == Counters::stable(1, 1, 0), "found {now}");
        region.verify(&[content.clone(), content].concat())?;
        drop(region);
        scanner.scan_once()?;
    }
    Ok(())
}

fn merge_frames(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(7, PAGES);
    let left = Region::with_content(&content)?;
    let right = Region::with_content(&content)?;
    step("before the advice there is no mg in smaps");
    ensure!(!procfs::is_mergeable(&left)?, "mg without advice");

    left.advise_mergeable()?;
    right.advise_mergeable()?;
    step("with the advice there is");
    ensure!(procfs::is_mergeable(&left)?, "no mg with advice");

    scanner.expect(Counters::stable(64, 64, 0))?;
    step("each pair of pages has one frame, which is flagged KSM");
    ensure_shared(&left, &right)
}

fn merge_unadvised(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(8, PAGES);
    let _unadvised = [
        Region::with_content(&content)?,
        Region::with_content(&content)?,
    ];
    let _advised = Region::mergeable(&content)?;

    scanner.expect(Counters::stable(0, 0, 64))
}

fn merge_volatile(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut writer = Peer::fork(|link| {
        let mut region = Region::mergeable(&pattern::page(9, 0).repeat(PAGES))?;
        for round in 0.. {
            link.step()?;
            link.await_step()?;
            change(&mut region, round);
        }
        Ok(())
    })?;
    writer.await_step()?;
    scanner.scan_on_demand()?;

    step("over ten scans every changing page is volatile and none is merged");
    for _ in 0..10 {
        writer.round()?;
        scanner.scan_once()?;
        let now = ksm::counters()?;
        ensure!(now == VOLATILE, "{now}, and not {VOLATILE}");
    }

    step("the end of the writer is the end of its account");
    writer.kill()?;
    ksm::write("sleep_millisecs", 0)?;
    scanner.expect_after_exit(Counters::ZERO)
}

const VOLATILE: Counters = Counters {
    volatile: PAGES as u64,
    ..Counters::ZERO
};

/// Gives every page a new content. Each two are equal.
fn change(region: &mut Region, round: u64) {
    for index in 0..region.pages() {
        let stamp = (round << 16) | (index / 2) as u64;
        region.page_mut(index)[PAGE_SIZE / 2..][..8].copy_from_slice(&stamp.to_ne_bytes());
    }
}
