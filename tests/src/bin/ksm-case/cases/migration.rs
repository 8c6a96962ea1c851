// SPDX-License-Identifier: GPL-2.0

//! Merged pages that move to other frames.

use std::time::{Duration, Instant};

use anyhow::{ensure, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Counters, Run, Scanner},
    numa, pagemap, pattern,
    peer::Peer,
    procfs,
    region::Region,
    wait, PAGE_SIZE,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_shared, holders, join_all, step, verify_all},
};

pub const CASES: &[Case] = &[
    Case::new(
        "compaction",
        "memory is compacted while pages are merged, written to and unmerged",
        compaction,
    ),
    Case::new(
        "move-pages",
        "move_pages moves KSM pages from node to node while everybody reads and writes",
        move_pages,
    )
    .on("x86:numa=2")
    .memory("512M"),
];

const PAGES: usize = 1024;

fn compact() -> Result<()> {
    control_file::write("/proc/sys/vm/compact_memory", 1)
}

/// Pages in a hole. Compaction looks for free frames in steps of up to 32, and finds no smaller
/// hole that lies between two of them.
const HOLE: usize = 64;

/// Most of the memory that is free, in pieces of the size of a hole, those in low frames first.
fn ballast() -> Result<Vec<Region>> {
    let mut rest = Region::new(procfs::free_pages()? as usize / 16 * 15)?;
    // What a child has too is not free when its parent unmaps it.
    rest.advise_raw(libc::MADV_DONTFORK)?;
    // In one call: page by page, User Mode Linux and its host change places 100,000 times.
    rest.advise_raw(libc::MADV_POPULATE_WRITE)?;
    let mut pieces = Vec::new();
    while rest.pages() > HOLE {
        let tail = rest.split_off(HOLE)?;
        pieces.push((pagemap::frame(&rest, 0)?, rest));
        rest = tail;
    }
    pieces.sort_by_key(|(frame, _)| *frame);
    Ok(pieces.into_iter().map(|(_, piece)| piece).collect())
}

/// Has `merge` get its memory in low frames, then leaves holes in the frames above them.
///
/// That is where compaction moves pages to: from low frames into holes in high ones. Without
/// that it depends on the kernel's size and on what has run before whether KSM pages are moved.
fn below_holes<T>(merge: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Region>)> {
    let mut low = ballast()?;
    let high = low.split_off(low.len() / 2);
    drop(low);
    let merged = merge()?;
    Ok((merged, high.into_iter().step_by(2).collect()))
}

fn compaction(options: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let merged = || scanner.expect(Counters::stable(1024, 3 * 1024, 0));
    let mut expected = content.clone();
    let ((mut peers, mut own), holes) = below_holes(|| {
        let peers = holders(3, &content, 1000)?;
        let own = Region::mergeable(&content)?;
        merged()?;
        Ok((peers, own))
    })?;
    let moved = compact_moving(&own)?;
    drop(holes);
    step(format!("{moved} of {PAGES} KSM pages have moved"));
    ensure!(moved > PAGES / 4, "compaction has moved few KSM pages");
    verify_all(&mut peers)?;
    own.verify(&expected)?;
    merged()?;

    let end = Instant::now() + Duration::from_secs(options.seconds / 4);
    let (mut rounds, mut moved) = (0, 0);
    while Instant::now() < end || rounds < 3 {
        let page = rounds * 37 % PAGES;
        own.page_mut(page)[7] ^= 1;
        expected[page * PAGE_SIZE + 7] ^= 1;
        let (_, holes) = below_holes(|| {
            ksm::set_run(Run::Unmerge)?;
            ksm::set_run(Run::Merge)?;
            scanner.settle()
        })?;
        moved += compact_moving(&own)?;
        own.verify(&expected)?;
        drop(holes);
        rounds += 1;
    }
    verify_all(&mut peers)?;
    step(format!(
        "{rounds} rounds, {moved} times a KSM page has moved"
    ));
    ensure!(
        moved > rounds * PAGES / 4,
        "compaction has moved few KSM pages that were merged anew"
    );
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    own.verify(&expected)?;
    for peer in peers {
        peer.kill()?;
    }
    Ok(())
}

/// Compacts memory; returns how many of the region's pages are KSM pages in another frame now.
fn compact_moving(region: &Region) -> Result<usize> {
    let before = pagemap::frames(region)?;
    compact()?;
    let mut moved = 0;
    for (before, now) in before.iter().zip(&pagemap::frames(region)?) {
        moved += usize::from(now != before && pagemap::is_ksm(*now)?);
    }
    Ok(moved)
}

fn move_pages(options: &Options) -> Result<()> {
    if !numa::has_node(1) {
        return Err(Skip("there is no second NUMA node here".into()).into());
    }
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, 256);
    let mut peers = holders(2, &content, 1)?;
    let mut writer = Peer::fork(|link| {
        let mut expected = content.clone();
        let mut region = Region::mergeable(&expected)?;
        link.step()?;
        let mut rounds = 0usize;
        while !link.has_message()? {
            let page = rounds * 31 % 256;
            region.page_mut(page)[3] ^= 1;
            expected[page * PAGE_SIZE + 3] ^= 1;
            region.verify(&expected)?;
            rounds += 1;
        }
        link.await_step()?;
        region.verify(&expected)?;
        link.send(rounds)
    })?;
    writer.await_step()?;
    let region = Region::mergeable(&content)?;
    wait::until("merged pages", || {
        Ok((ksm::counters()?.sharing >= 2 * 256).then_some(()))
    })?;

    let end = Instant::now() + Duration::from_secs(options.seconds / 4);
    let (mut rounds, mut moved) = (0u32, 0);
    while Instant::now() < end || rounds < 4 {
        moved += numa::move_to(&region, rounds % 2)?;
        region.verify(&content)?;
        rounds += 1;
    }
    step(format!("{rounds} rounds, {moved} pages moved"));
    ensure!(moved > 0, "nothing was moved");
    writer.step()?;
    let writes: usize = writer.receive()?;
    ensure!(writes > 0, "the writer got no turn");
    writer.join()?;
    verify_all(&mut peers)?;
    join_all(peers)?;
    region.verify(&content)?;

    step("in the end, the movable ones of a merged pair still share");
    let other = Region::mergeable(&content)?;
    scanner.settle()?;
    numa::move_to(&region, 1)?;
    ensure_shared(&region, &other)?;
    region.verify(&content)?;
    other.verify(&content)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    region.verify(&content)
}
