// SPDX-License-Identifier: GPL-2.0

//! `max_page_sharing`: a page that too many share gets a twin.

use std::time::Duration;

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    pattern,
    peer::{Link, Peer},
    procfs::Ksmd,
    region::Region,
    wait, PAGE_SIZE,
};

use crate::{
    case::{Case, Options},
    helpers::{holders, join_all, step, verify_all},
};

pub const CASES: &[Case] = &[
    Case::new(
        "sharing-limit",
        "no page has more mappings than max_page_sharing; its twins are counted as dups",
        limit,
    ),
    Case::new(
        "sharing-limit-exit",
        "chains shrink as sharers exit, and end with the last of them",
        shrink,
    ),
    Case::new(
        "sharing-limit-fork",
        "a fork may exceed the limit, and loses nothing by it",
        exceed_by_fork,
    ),
    Case::new(
        "sharing-limit-prune",
        "twins whose pages have all gone are found at once when prune_millisecs is 0",
        prune,
    ),
    Case::new(
        "sharing-limit-many",
        "a content with four times as many pages takes about four times as long to merge",
        many,
    )
    .on("um")
    .memory("512M"),
    Case::new(
        "sharing-unlimited",
        "a page can have more mappings than the kernel has memory for in one piece",
        unlimited,
    )
    .on("um"),
];

/// A scanner at rest, with another limit.
fn prepare(limit: u64) -> Result<Scanner> {
    let scanner = Scanner::prepare()?;
    ksm::write("max_page_sharing", limit)?;
    ksm::write("stable_node_chains_prune_millisecs", 0)?;
    Ok(scanner)
}

fn expect_chains(chains: u64, dups: u64) -> Result<()> {
    let now: (u64, u64) = (
        ksm::read("stable_node_chains")?,
        ksm::read("stable_node_dups")?,
    );
    ensure!(
        now == (chains, dups),
        "{} chains with {} dups, not {chains} with {dups}",
        now.0,
        now.1
    );
    Ok(())
}

/// What `pages` equal pages come to when a page may have `limit` mappings.
fn expectation(pages: u64, limit: u64) -> Counters {
    // One that is left over has no partner.
    let (full, rest) = (pages / limit, pages % limit);
    let shared = full + u64::from(rest > 1);
    let unshared = u64::from(rest == 1);
    Counters::stable(shared, pages - shared - unshared, unshared)
}

fn limit(_: &Options) -> Result<()> {
    for (limit, pages) in [
        (2, 2),
        (2, 4),
        (2, 11),
        (3, 3),
        (3, 10),
        (10, 10),
        (10, 95),
        (256, 300),
    ] {
        let scanner = prepare(limit)?;
        ksm::set_run(Run::Merge)?;
        let content = pattern::page(limit, 0).repeat(pages);
        let region = Region::mergeable(&content)?;
        let expected = expectation(pages as u64, limit);
        step(format!(
            "{pages} equal pages, at most {limit} to share: {expected}"
        ));
        scanner.expect(expected)?;
        match expected.shared {
            0 | 1 => expect_chains(0, 0)?,
            shared => expect_chains(1, shared)?,
        }
        region.verify(&content)?;
        ksm::set_run(Run::Unmerge)?;
        expect_chains(0, 0)?;
        region.verify(&content)?;
    }
    Ok(())
}

fn shrink(_: &Options) -> Result<()> {
    const PAGES: usize = 4;
    let scanner = prepare(2)?;
    ksm::set_run(Run::Merge)?;
    let content = pattern::pages(1, PAGES);
    let mut peers = holders(8, &content, 4)?;
    step("eight processes, two to a page");
    scanner.expect(Counters::stable(16, 16, 0))?;
    expect_chains(4, 16)?;
    for left in [6, 4, 2] {
        for peer in peers.drain(left..) {
            peer.kill()?;
        }
        verify_all(&mut peers)?;
        wait::until("all pages to be accounted for", || {
            let now = scanner.settle()?;
            let pages = now.shared + now.sharing + now.unshared;
            Ok((pages == (PAGES * left) as u64).then_some(()))
        })?;
        step(format!("{left} processes left: {}", ksm::counters()?));
        let dups: u64 = ksm::read("stable_node_dups")?;
        ensure!(dups <= 16, "more dups than before: {dups}");
    }
    verify_all(&mut peers)?;
    join_all(peers)?;
    step("nobody left");
    scanner.expect_after_exit(Counters::ZERO)?;
    ksm::set_run(Run::Unmerge)?;
    expect_chains(0, 0)
}

fn exceed_by_fork(_: &Options) -> Result<()> {
    const PAGES: usize = 8;
    let scanner = prepare(2)?;
    ksm::set_run(Run::Merge)?;
    let content = pattern::pages(2, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(8, 8, 0))?;

    let mut children: Vec<_> = (0..3)
        .map(|_| {
            ksm_tests::peer::Peer::fork(|link| {
                link.step()?;
                link.await_step()?;
                left.verify(&content)?;
                right.verify(&content)?;
                link.step()
            })
        })
        .collect::<Result<_>>()?;
    for child in &mut children {
        child.await_step()?;
    }
    step("three children: eight mappings of a page, though two is the limit");
    scanner.expect(Counters::stable(8, 7 * 8, 0))?;
    expect_chains(0, 0)?;
    step("a latecomer and its copy get a page of their own");
    let late = Region::mergeable(&content.repeat(2))?;
    scanner.expect(Counters::stable(16, 8 * 8, 0))?;
    expect_chains(8, 16)?;
    for child in &mut children {
        child.round()?;
    }
    for child in children {
        child.join()?;
    }
    ksm::set_run(Run::Unmerge)?;
    expect_chains(0, 0)?;
    left.verify(&content)?;
    right.verify(&content)?;
    late.verify(&content.repeat(2))
}

fn prune(_: &Options) -> Result<()> {
    let scanner = prepare(2)?;
    ksm::set_run(Run::Merge)?;
    let content = pattern::page(3, 0).repeat(40);
    let mut keep = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(20, 20, 0))?;
    expect_chains(1, 20)?;

    step("36 of the 40 pages are unmapped");
    drop(keep.split_off(4).context("split")?);
    scanner.scans(2)?;
    step("newcomers make the scanner look at the chain");
    let late = Region::mergeable(&content[..4 * PAGE_SIZE])?;
    let now = scanner.settle()?;
    let dups: u64 = ksm::read("stable_node_dups")?;
    ensure!(dups == now.shared, "{dups} dups for {now}");
    ensure!(now.shared + now.sharing == 8, "not all are merged: {now}");
    keep.verify(&content[..4 * PAGE_SIZE])?;
    late.verify(&content[..4 * PAGE_SIZE])
}

/// How much CPU time `ksmd` takes to merge so many equal pages, two to a KSM page.
fn time_to_merge(pages: usize) -> Result<Duration> {
    let scanner = prepare(2)?;
    ksm::write("stable_node_chains_prune_millisecs", 1_000_000)?;
    let content = pattern::page(6, 0);
    let mut region = Region::new(pages)?;
    for index in 0..pages {
        region.page_mut(index).copy_from_slice(&content);
    }
    region.advise_mergeable()?;
    let thread = Ksmd::find()?;
    let before = thread.cpu_time()?;
    ksm::set_run(Run::Merge)?;
    let half = pages as u64 / 2;
    scanner.expect(Counters::stable(half, half, 0))?;
    let time = thread.cpu_time()? - before;
    expect_chains(1, half)?;
    drop(region);
    ksm::set_run(Run::Unmerge)?;
    Ok(time)
}

fn many(_: &Options) -> Result<()> {
    const FEW: usize = 10_000;
    // What only sometimes disturbs is not in the shortest of three.
    let shortest = |pages| -> Result<Duration> {
        let times = (0..3).map(|_| time_to_merge(pages));
        times
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .min()
            .context("no time")
    };
    let (few, four_times) = (shortest(FEW)?, shortest(4 * FEW)?);
    let ratio = four_times.as_secs_f64() / few.as_secs_f64();
    step(format!(
        "{FEW} equal pages: {few:.1?}; {}: {four_times:.1?}, {ratio:.1} times as long",
        4 * FEW
    ));
    // 4 if each page costs the same, 16 if each page costs a walk over all KSM pages.
    ensure!(
        ratio < 8.0,
        "chains are walked: {ratio:.1} times as long for 4 times as many pages"
    );
    Ok(())
}

/// Pages of each of the [`SHARERS`]: more than 4 MiB of the list of mappings in all, which are as much
/// as can be had in one piece. User Mode Linux cannot map many more in one process.
const MANY: usize = 40_000;
const SHARERS: usize = 8;

/// Pages that there is memory for until they are merged.
const AT_ONCE: usize = 10_000;

fn unlimited(_: &Options) -> Result<()> {
    let scanner = prepare(1 << 20)?;
    ksm::set_run(Run::Merge)?;
    let content = pattern::page(5, 0);
    let mut region = Region::new(MANY)?;
    region.advise_mergeable()?;
    step(format!("{MANY} equal pages"));
    for pages in region.bytes_mut().chunks_mut(AT_ONCE * PAGE_SIZE) {
        pages.copy_from_slice(&content.repeat(pages.len() / PAGE_SIZE));
        scanner.settle()?;
    }
    scanner.expect(Counters::stable(1, MANY as u64 - 1, 0))?;
    step(format!("{SHARERS} processes share them"));
    let children: Vec<_> = (1..SHARERS)
        .map(|_| Peer::fork(Link::await_step))
        .collect::<Result<_>>()?;
    scanner.expect(Counters::stable(1, (SHARERS * MANY) as u64 - 1, 0))?;
    step("all but one of them go");
    for child in children {
        child.kill()?;
    }
    scanner.expect_after_exit(Counters::stable(1, MANY as u64 - 1, 0))?;
    for index in 0..MANY {
        ensure!(region.page(index) == content, "DATA LOST in page {index}");
    }
    Ok(())
}
