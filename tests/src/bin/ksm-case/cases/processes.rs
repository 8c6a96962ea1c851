// SPDX-License-Identifier: GPL-2.0

//! Processes that fork, exec and end while their memory is merged.

use anyhow::{ensure, Result};
use ksm_tests::{
    ksm,
    ksm::{Counters, Run, Scanner},
    pattern,
    peer::Peer,
    procfs,
    region::Region,
    PAGE_SIZE,
};

use crate::{
    case::{Case, Options},
    helpers::{self, holder, holders, join_all, step, verify_all, AfterExec},
};

pub const CASES: &[Case] = &[
    Case::new(
        "fork-merged",
        "children and grandchildren of a process with merged memory read, write and exit",
        fork_merged,
    ),
    Case::new(
        "fork-inherits",
        "a child's copy of advised memory is merged like its parent's",
        fork_inherits,
    ),
    Case::new(
        "fork-while-scanning",
        "a hundred forks beside a scanner that never stops",
        fork_while_scanning,
    ),
    Case::new(
        "exit-merged",
        "of four sharers one after the other exits; the rest keep their data",
        exit_merged,
    ),
    Case::new(
        "kill-merging",
        "processes killed at any moment of their merging leave nothing behind",
        kill_merging,
    ),
    Case::new(
        "exec-merged",
        "a process with merged memory starts another program",
        exec_merged,
    ),
];

const PAGES: usize = 64;

/// Reads all, writes to every page, and reads all again.
fn use_memory(region: &mut Region, expected: &mut [u8], mark: u8) -> Result<()> {
    region.verify(expected)?;
    for index in 0..region.pages() {
        region.page_mut(index)[300] ^= mark;
        expected[index * PAGE_SIZE + 300] ^= mark;
    }
    region.verify(expected)
}

/// Forks `depth` generations, each of which uses its copy before and after the next one.
fn descend(region: &mut Region, expected: &mut [u8], depth: u8) -> Result<()> {
    if depth == 0 {
        return Ok(());
    }
    Peer::fork(|_| {
        use_memory(region, expected, depth)?;
        descend(region, expected, depth - 1)?;
        region.verify(expected)
    })?
    .join()
}

fn fork_merged(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;

    step("three generations write to their copies");
    let mut expected = content.clone();
    descend(&mut left, &mut expected, 3)?;
    step("the first process sees none of that");
    left.verify(&content)?;
    right.verify(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;
    left.verify(&content)?;
    right.verify(&content)
}

fn fork_inherits(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;

    let mut child = Peer::fork(|link| {
        ensure!(procfs::is_mergeable(&left)?, "no mg in the child");
        link.step()?;
        link.await_step()?;
        left.verify(&content)?;
        right.verify(&content)?;
        link.step()
    })?;
    child.await_step()?;
    step("parent and child hold 256 pages in 64 frames");
    scanner.expect(Counters::stable(64, 3 * 64, 0))?;

    step("run=2 makes all of them private");
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    child.round()?;
    child.join()?;
    left.verify(&content)?;
    right.verify(&content)
}

fn fork_while_scanning(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(3, PAGES);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    for round in 0..100 {
        let mut expected = content.clone();
        Peer::fork(|_| use_memory(&mut left, &mut expected, 1 + round % 255))?.join()?;
        // The parent writes too, so that there is always something to merge.
        left.page_mut(usize::from(round) % PAGES)[9] ^= 1;
        left.page_mut(usize::from(round) % PAGES)[9] ^= 1;
        left.verify(&content)?;
        right.verify(&content)?;
    }
    scanner.expect_after_exit(Counters::stable(64, 64, 0))?;
    left.verify(&content)?;
    right.verify(&content)
}

fn exit_merged(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(4, PAGES);
    // Process number n leaves after n more looks at its data.
    let mut peers = (1..=4)
        .map(|rounds| holder(&content, rounds))
        .collect::<Result<Vec<_>>>()?;
    scanner.expect(Counters::stable(64, 3 * 64, 0))?;

    while !peers.is_empty() {
        verify_all(&mut peers)?;
        peers.remove(0).join()?;
        step(format!("{} processes are left", peers.len()));
        scanner.expect_after_exit(match peers.len() as u64 {
            0 => Counters::ZERO,
            left => Counters::stable(64, 64 * (left - 1), 0),
        })?;
    }
    Ok(())
}

fn kill_merging(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, 4 * PAGES);
    let mut survivors = holders(2, &content, 2)?;
    for round in 0..30 {
        let victim = holder(&content, 1)?;
        // Another moment each time: from the first look at a page to long after its merging.
        std::thread::sleep(std::time::Duration::from_micros(round * round * 200));
        victim.kill()?;
    }
    step("two survivors of 32 processes have all their data");
    verify_all(&mut survivors)?;
    scanner.expect_after_exit(Counters::stable(256, 256, 0))?;
    verify_all(&mut survivors)?;
    join_all(survivors)
}

fn exec_merged(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(6, PAGES);
    let mut stayer = holder(&content, 1)?;
    let mut leaver = Peer::fork(|link| {
        let _region = Region::mergeable(&content)?;
        link.step()?;
        link.await_step()?;
        helpers::exec(link)
    })?;
    leaver.await_step()?;
    scanner.expect(Counters::stable(64, 64, 0))?;

    leaver.step()?;
    let state: AfterExec = leaver.receive()?;
    step("after execve the process holds no merged page");
    ensure!(state.merging_pages == 0, "{} are", state.merging_pages);
    scanner.expect_after_exit(Counters::stable(64, 0, 0))?;
    stayer.round()?;
    leaver.kill()?;
    join_all(vec![stayer])
}
