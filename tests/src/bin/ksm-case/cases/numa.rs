// SPDX-License-Identifier: GPL-2.0

//! `merge_across_nodes`: whether pages of different NUMA nodes may become one.

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    numa::{self, Policy},
    pagemap, pattern,
    region::Region,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_shared, step},
};

const TWO_NODES: &str = "x86:numa=2";

pub const CASES: &[Case] = &[
    Case::new(
        "numa-separate",
        "with merge_across_nodes 0 pages of two nodes merge among themselves only",
        separate,
    )
    .on(TWO_NODES)
    .memory("512M"),
    Case::new(
        "numa-across",
        "with merge_across_nodes 1 they merge all, and the switch works both ways",
        across,
    )
    .on(TWO_NODES)
    .memory("512M"),
    Case::new(
        "numa-migrate",
        "a KSM page that moves to another node joins the trees of that node",
        migrate,
    )
    .on(TWO_NODES)
    .memory("512M"),
    Case::new(
        "numa-migrate-full",
        "a KSM page of another node is not joined, where the first of that content is full",
        migrate_full,
    )
    .on(TWO_NODES)
    .memory("512M"),
    Case::new(
        "numa-unmerge",
        "copies lie on the nodes that the region, or else the thread, wants them on",
        unmerge,
    )
    .on(TWO_NODES)
    .memory("512M"),
    Case::new(
        "numa-toggles",
        "merge_across_nodes switched many times between two scans",
        toggles,
    )
    .on(TWO_NODES)
    .memory("512M"),
];

const PAGES: usize = 32;

fn prepare(across: u32) -> Result<Scanner> {
    if !(numa::has_node(0) && numa::has_node(1)) {
        return Err(Skip("there are no two NUMA nodes here".into()).into());
    }
    let scanner = Scanner::prepare()?;
    ksm::write("merge_across_nodes", across)?;
    ksm::set_run(Run::Merge)?;
    Ok(scanner)
}

/// An advised region whose pages lie on `node`.
fn on_node(node: u32, content: &[u8]) -> Result<Region> {
    let mut region = Region::new(content.len() / ksm_tests::PAGE_SIZE)?;
    numa::bind(&region, node)?;
    region.bytes_mut().copy_from_slice(content);
    numa::ensure_on(&region, node)?;
    region.advise_mergeable()?;
    Ok(region)
}

fn separate(_: &Options) -> Result<()> {
    let scanner = prepare(0)?;
    let content = pattern::pages(1, PAGES);
    let regions = [0, 0, 1, 1].map(|node| on_node(node, &content));
    let [a, b, c, d] = regions;
    let (a, b, c, d) = (a?, b?, c?, d?);
    step("two KSM pages for each content, one on each node");
    scanner.expect(Counters::stable(64, 64, 0))?;
    ensure_shared(&a, &b)?;
    ensure_shared(&c, &d)?;
    numa::ensure_on(&a, 0)?;
    numa::ensure_on(&d, 1)?;

    step("a page without an equal on its node stays as it is");
    let alone = on_node(1, &pattern::pages(2, PAGES))?;
    let elsewhere = on_node(0, &pattern::pages(2, PAGES))?;
    scanner.expect(Counters::stable(64, 64, 64))?;
    for region in [&a, &b, &c, &d] {
        region.verify(&content)?;
    }
    alone.verify(elsewhere.bytes())
}

fn across(_: &Options) -> Result<()> {
    let scanner = prepare(1)?;
    let content = pattern::pages(3, PAGES);
    let left = on_node(0, &content)?;
    let right = on_node(1, &content)?;
    for _ in 0..2 {
        step("across nodes: one page for both");
        scanner.expect(Counters::stable(32, 32, 0))?;
        ensure_shared(&left, &right)?;
        ksm::set_run(Run::Unmerge)?;
        ksm::write("merge_across_nodes", 0)?;
        rehome(&left, 0)?;
        rehome(&right, 1)?;
        ksm::set_run(Run::Merge)?;
        step("not across nodes: each as it is");
        scanner.expect(Counters::stable(0, 0, 64))?;
        ksm::set_run(Run::Unmerge)?;
        ksm::write("merge_across_nodes", 1)?;
        ksm::set_run(Run::Merge)?;
    }
    left.verify(&content)?;
    right.verify(&content)
}

/// Unmerging has made copies wherever there was room.
fn rehome(region: &Region, node: u32) -> Result<()> {
    numa::move_to(region, node)?;
    numa::ensure_on(region, node)
}

fn migrate(_: &Options) -> Result<()> {
    let scanner = prepare(0)?;
    let content = pattern::pages(4, PAGES);
    let near = [on_node(0, &content)?, on_node(0, &content)?];
    let far = [on_node(1, &content)?, on_node(1, &content)?];
    scanner.expect(Counters::stable(64, 64, 0))?;

    step("move_pages takes the KSM pages of node 1 to node 0");
    let before = pagemap::frames(&far[0])?;
    numa::bind(&far[0], 0)?;
    numa::bind(&far[1], 0)?;
    let moved = numa::move_to(&far[0], 0)?;
    ensure!(moved >= PAGES * 9 / 10, "only {moved} of {PAGES} moved");
    ensure!(pagemap::frames(&far[0])? != before, "no page has moved");
    ensure_shared(&far[0], &far[1])?;
    for region in near.iter().chain(&far) {
        region.verify(&content)?;
    }
    step("newcomers on node 0 merge with what is there; nothing is left for node 1");
    let late = on_node(0, &content)?;
    let now = scanner.settle()?;
    step(format!("{now}"));
    ensure!(
        now.shared + now.sharing == 5 * PAGES as u64,
        "not everything is merged: {now}"
    );
    let other = on_node(1, &content)?;
    let now = scanner.settle()?;
    // The kernel may have left one behind, or moved it back.
    let behind = numa::nodes(&far[0])?
        .iter()
        .filter(|&&node| node == 1)
        .count();
    ensure!(
        now.unshared == (PAGES - behind) as u64,
        "merged across nodes, beyond {behind} that stay on node 1: {now}"
    );
    for region in near.iter().chain(&far).chain([&late, &other]) {
        region.verify(&content)?;
    }
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    for region in near.iter().chain(&far).chain([&late, &other]) {
        region.verify(&content)?;
    }
    Ok(())
}

fn migrate_full(_: &Options) -> Result<()> {
    let scanner = prepare(0)?;
    ksm::write("max_page_sharing", 2)?;
    let content = pattern::pages(6, PAGES);
    step("two KSM pages for each content, of which the older one has room");
    let older = on_node(0, &content)?;
    let mut leaver = on_node(0, &content)?;
    scanner.expect(Counters::stable(32, 32, 0))?;
    let newer = [on_node(0, &content)?, on_node(0, &content)?];
    scanner.expect(Counters::stable(64, 64, 0))?;
    leaver
        .bytes_mut()
        .copy_from_slice(&pattern::pages(7, PAGES));
    scanner.expect(Counters::stable(64, 32, 32))?;

    scanner.scan_on_demand()?;
    let newcomer = on_node(0, &content)?;
    ensure!(
        newcomer.address() < older.address(),
        "the scan comes to the newcomer last"
    );
    scanner.scan_once()?;
    step("the older one moves to node 1 before the next scan, which comes to a newcomer first");
    numa::bind(&older, 1)?;
    let moved = numa::move_to(&older, 1)?;
    ensure!(moved >= PAGES * 9 / 10, "only {moved} of {PAGES} moved");
    scanner.scan_once()?;
    numa::ensure_on(&newcomer, 0)?;
    for region in newer.iter().chain([&older, &newcomer]) {
        region.verify(&content)?;
    }
    Ok(())
}

fn unmerge(_: &Options) -> Result<()> {
    let scanner = prepare(1)?;
    let content = pattern::pages(8, PAGES);
    let _stays = on_node(0, &content)?;
    let bound = on_node(0, &content)?;
    let plain = [Region::mergeable(&content)?, Region::mergeable(&content)?];
    scanner.expect(Counters::stable(32, 96, 0))?;

    step("a region that is bound to node 1");
    numa::bind(&bound, 1)?;
    bound.advise_unmergeable()?;
    numa::ensure_on(&bound, 1)?;
    step("a thread that is");
    numa::set_policy(&Policy::Bind(1))?;
    plain[0].advise_unmergeable()?;
    numa::ensure_on(&plain[0], 1)?;
    step("a thread that wants its pages from both nodes in turns");
    numa::set_policy(&Policy::Interleave)?;
    plain[1].advise_unmergeable()?;
    numa::set_policy(&Policy::Default)?;
    let nodes = numa::nodes(&plain[1])?;
    let on_first = nodes.iter().filter(|&&node| node == 0).count();
    ensure!(on_first == PAGES / 2, "pages are on nodes {nodes:?}");
    for region in plain.iter().chain([&bound]) {
        region.verify(&content)?;
    }
    Ok(())
}

fn toggles(_: &Options) -> Result<()> {
    let scanner = prepare(0)?;
    let content = pattern::pages(5, PAGES);
    let left = on_node(0, &content)?;
    let right = on_node(1, &content)?;
    for switches in [2, 62, 64, 66, 126, 128, 130] {
        ksm::set_run(Run::Merge)?;
        scanner.expect(Counters::stable(0, 0, 64))?;
        ksm::set_run(Run::Stop)?;
        step(format!("{switches} switches with no scan between them"));
        for _ in 0..switches / 2 {
            ksm::write("merge_across_nodes", 1)?;
            ksm::write("merge_across_nodes", 0)?;
        }
        ksm::set_run(Run::Merge)?;
        scanner.scans(1)?;
    }
    ksm::write("merge_across_nodes", 1)?;
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(32, 32, 0))?;
    left.verify(&content)?;
    right.verify(&content)
}
