// SPDX-License-Identifier: GPL-2.0

//! Merged pages become private again when they are asked to, with their contents.

use anyhow::{bail, ensure, Result};
use ksm_tests::{
    cgroup::{leave, Cgroup},
    ksm::{self, Counters, Run, Scanner},
    pagemap, pattern,
    peer::Peer,
    procfs::{self, KsmStat},
    region::Region,
    wait, PAGE_SIZE,
};
use nix::unistd::Pid;

use crate::{
    case::{Case, Options},
    helpers::{
        ensure_merging_pages, ensure_private, ensure_shared, expect_sharing, holders, join_all,
        step, verify_all,
    },
};

pub const CASES: &[Case] = &[
    Case::new(
        "unmerge-madvise",
        "MADV_UNMERGEABLE makes pages private at once and for good",
        by_madvise,
    ),
    Case::new(
        "unmerge-part",
        "MADV_UNMERGEABLE on a part leaves the rest merged",
        part,
    ),
    Case::new(
        "unmerge-mixed",
        "MADV_UNMERGEABLE copies what is merged, no more, where much else lies between",
        mixed,
    ),
    Case::new(
        "unmerge-run2",
        "run=2 makes all pages private before the write returns",
        by_run,
    ),
    Case::new(
        "unmerge-run2-processes",
        "run=2 reaches every process",
        by_run_in_processes,
    ),
    Case::new(
        "unmerge-run0",
        "run=0 leaves merged what is merged and merges no more",
        by_stop,
    ),
    Case::new(
        "unmerge-again",
        "after run=2, run=1 merges all again, ten times over",
        again,
    ),
    Case::new(
        "unmerge-last",
        "the last one to share a page keeps it, and can write it without a copy",
        last_one,
    ),
    Case::new(
        "unmerge-charge",
        "unmerged pages are charged to the group of the process that has them",
        charge,
    ),
];

const PAGES: usize = 64;

fn by_madvise(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;

    left.advise_unmergeable()?;
    right.advise_unmergeable()?;
    step("every page has a frame of its own as soon as madvise returns");
    ensure_private(&left, &right)?;
    left.verify(&content)?;
    right.verify(&content)?;
    ensure!(!procfs::is_mergeable(&left)?, "mg is still in smaps");

    step("scans change nothing, and all accounts are empty");
    scanner.expect(Counters::ZERO)?;
    ensure_private(&left, &right)?;
    ensure_merging_pages(0)?;
    let items = KsmStat::read("self")?.rmap_items;
    ensure!(items == 0, "ksm_rmap_items is {items}, not 0");
    left.verify(&content)?;
    right.verify(&content)
}

fn part(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, 3 * PAGES);
    let mut head = Region::mergeable(&content)?;
    let other = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(192, 192, 0))?;

    let mut middle = head.split_off(PAGES)?;
    let tail = middle.split_off(PAGES)?;
    middle.advise_unmergeable()?;
    step("the middle third is private, the other two are merged");
    // The other mapping's middle third is left alone in frames that KSM still owns.
    expect_sharing(&scanner, 128)?;
    let (first, second) = content.split_at(PAGES * PAGE_SIZE);
    let (second, third) = second.split_at(PAGES * PAGE_SIZE);
    head.verify(first)?;
    middle.verify(second)?;
    tail.verify(third)?;
    other.verify(&content)
}

fn mixed(_: &Options) -> Result<()> {
    // More than two page tables have entries for.
    const MANY: usize = 1100;
    // Now one of these, and now many in a row, are not merged.
    let is_changed = |page: usize| page % 7 == 3 || (400..450).contains(&page);
    let scanner = Scanner::start()?;
    let content = pattern::pages(11, MANY);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(MANY as u64, MANY as u64, 0))?;
    let mut expected = content.clone();
    for page in (0..MANY).filter(|page| is_changed(*page)) {
        left.page_mut(page)[0] ^= 1;
        expected[page * PAGE_SIZE] ^= 1;
    }
    let changed = (0..MANY).filter(|page| is_changed(*page)).count();
    let (frames, of_others) = (pagemap::frames(&left)?, pagemap::frames(&right)?);

    let before = procfs::vmstat("cow_ksm")?;
    left.advise_unmergeable()?;
    let copies = procfs::vmstat("cow_ksm")? - before;
    step(format!(
        "{copies} of {MANY} pages were copied, and {changed} had no need"
    ));
    ensure!(copies as usize == MANY - changed, "not just those");
    let now = pagemap::frames(&left)?;
    for page in 0..MANY {
        let moved = frames[page] != now[page];
        ensure!(moved != is_changed(page), "page {page}: moved is {moved}");
    }
    ensure!(pagemap::frames(&right)? == of_others, "others have moved");
    left.verify(&expected)?;
    right.verify(&content)?;

    step("a write to a copy is its owner's alone, and copies nothing");
    for page in 0..MANY {
        left.page_mut(page)[1] ^= 1;
        expected[page * PAGE_SIZE + 1] ^= 1;
    }
    ensure!(pagemap::frames(&left)? == now, "a write has copied");
    left.verify(&expected)?;
    right.verify(&content)?;
    expect_sharing(&scanner, 0)
}

/// How often [`last_one`] tries: a page that compaction moves, or has a reference to, is not kept.
const TRIES: usize = 4;

fn last_one(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(9, PAGES);
    let left = Region::mergeable(&content)?;
    let mut right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;
    keep_all(&scanner, &left, &mut right, &content)?;

    step("it writes them where they are");
    let shared = pagemap::frames(&right)?;
    let changed = pattern::pages(10, PAGES);
    right.bytes_mut().copy_from_slice(&changed);
    ensure!(pagemap::frames(&right)? == shared, "a write has copied");
    right.verify(&changed)?;
    left.verify(&content)?;

    step("and they merge again");
    merge_again(&scanner, &left, &mut right, &content)?;
    ensure_shared(&left, &right)?;
    left.verify(&content)?;
    right.verify(&content)
}

/// Parts two regions that share all their pages, until the second one has kept all of its frames.
fn keep_all(scanner: &Scanner, left: &Region, right: &mut Region, content: &[u8]) -> Result<()> {
    for _ in 0..TRIES {
        if keeps_all(left, right)? {
            return Ok(());
        }
        merge_again(scanner, left, right, content)?;
    }
    bail!("they were copied, {TRIES} times")
}

/// As [`keep_all`], once; returns whether no frame has changed.
fn keeps_all(left: &Region, right: &Region) -> Result<bool> {
    let shared = pagemap::frames(right)?;
    left.advise_unmergeable()?;
    step("one has copies, the other has the shared frames still");
    let copies = pagemap::frames(left)?;
    ensure!(
        copies.iter().all(|frame| !shared.contains(frame)),
        "not all were copied"
    );
    right.advise_unmergeable()?;
    step("the other has no copies, and the frames are no KSM pages any more");
    let kept = pagemap::frames(right)?;
    for frame in &kept {
        ensure!(!pagemap::is_ksm(*frame)?, "frame {frame} is a KSM page");
    }
    Ok(kept == shared)
}

fn merge_again(scanner: &Scanner, left: &Region, right: &mut Region, content: &[u8]) -> Result<()> {
    scanner.expect(Counters::ZERO)?;
    right.bytes_mut().copy_from_slice(content);
    left.advise_mergeable()?;
    right.advise_mergeable()?;
    scanner.expect(Counters::stable(64, 64, 0))
}

fn by_run(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(3, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;
    ensure_shared(&left, &right)?;

    ksm::set_run(Run::Unmerge)?;
    step("as soon as the write returns, all accounts are empty");
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    ensure!(ksm::read::<u32>("run")? == 2, "run does not read 2");
    ensure_merging_pages(0)?;
    let items = KsmStat::read("self")?.rmap_items;
    ensure!(items == 0, "ksm_rmap_items is {items}, not 0");

    step("every page has a frame of its own, with its contents");
    ensure_private(&left, &right)?;
    left.verify(&content)?;
    right.verify(&content)
}

fn by_run_in_processes(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(4, PAGES);
    let mut peers = holders(4, &content, 2)?;
    scanner.expect(Counters::stable(64, 3 * 64, 0))?;
    verify_all(&mut peers)?;

    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    for peer in &peers {
        let merging = procfs::merging_pages(peer.pid())?;
        ensure!(merging == 0, "{} still merges {merging} pages", peer.pid());
    }
    verify_all(&mut peers)?;
    join_all(peers)
}

fn by_stop(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;

    ksm::set_run(Run::Stop)?;
    let scanned: u64 = ksm::read("pages_scanned")?;
    let third = Region::mergeable(&content)?;
    step("the scanner rests: nothing is scanned for a second");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let scanned_later: u64 = ksm::read("pages_scanned")?;
    ensure!(scanned == scanned_later, "it scans while run is 0");
    let now = ksm::counters()?;
    ensure!(now == Counters::stable(64, 64, 0), "changed: {now}");
    ensure_shared(&left, &right)?;

    ksm::set_run(Run::Merge)?;
    step("run=1 goes on with the newcomer");
    scanner.expect(Counters::stable(64, 128, 0))?;
    third.verify(&content)
}

fn again(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(6, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    for _ in 0..10 {
        scanner.expect(Counters::stable(64, 64, 0))?;
        ksm::set_run(Run::Unmerge)?;
        ensure_private(&left, &right)?;
        left.verify(&content)?;
        right.verify(&content)?;
        ksm::set_run(Run::Merge)?;
    }
    Ok(())
}

fn charge(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(9, PAGES);
    let group = Cgroup::new("first")?;
    step("two regions of a group merge, so the pages are charged to it");
    let mut owner = Peer::fork(|link| {
        group.add(Pid::this())?;
        let regions = (Region::mergeable(&content)?, Region::mergeable(&content)?);
        link.step()?;
        link.await_step()?;
        drop(regions);
        Ok(())
    })?;
    owner.await_step()?;
    scanner.expect(Counters::stable(64, 64, 0))?;
    step("another group comes to share them, and the first leaves");
    let other = Cgroup::new("second")?;
    other.add(Pid::this())?;
    let last = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 2 * 64, 0))?;
    owner.step()?;
    owner.join()?;
    scanner.expect_after_exit(Counters::stable(64, 0, 0))?;
    let size = content.len() as u64;
    let anonymous = || -> Result<_> { Ok((group.statistic("anon")?, other.statistic("anon")?)) };
    let (shared, before) = wait::until("one copy to be charged, to the first group", || {
        let (first, second) = anonymous()?;
        Ok(((size..2 * size).contains(&first) && second < size).then_some((first, second)))
    })?;

    step("unmerged, they are the second's");
    last.advise_unmergeable()?;
    last.verify(&content)?;
    let (left, after) = wait::until("the first group's charge to become the second's", || {
        let (left, after) = anonymous()?;
        Ok((left + size <= shared && after >= before + size).then_some((left, after)))
    })?;
    step(format!(
        "first: {shared}, then {left} bytes; second: {before}, then {after}"
    ));
    leave(Pid::this())
}
