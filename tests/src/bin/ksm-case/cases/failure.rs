// SPDX-License-Identifier: GPL-2.0

//! Memory that breaks, or is taken away, below merged pages.

use anyhow::{bail, ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    memory_block::Block,
    pagemap, pattern,
    peer::{Link, Peer},
    region::Region,
    wait, PAGE_SIZE,
};
use nix::{
    errno::Errno,
    sys::{
        signal::{signal, SigHandler, Signal},
        wait::{waitpid, WaitStatus},
    },
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_shared, holders, join_all, step, verify_all},
};

pub const CASES: &[Case] = &[
    Case::new(
        "soft-offline",
        "a KSM page whose frame is taken out of use moves, for all who share it",
        soft_offline,
    )
    .on("x86"),
    Case::new(
        "memory-failure",
        "a KSM page that breaks ends those who asked for it at once, others when they touch it",
        hard_failure,
    )
    .on("x86"),
    Case::new(
        "memory-failure-equal",
        "a page does not merge with a KSM page that has broken",
        equal_after_failure,
    )
    .on("x86"),
    Case::new(
        "memory-failure-copied",
        "a process with a copy of its own of a KSM page that breaks is not told",
        copied_before_failure,
    )
    .on("x86"),
    Case::new(
        "memory-offline",
        "a block of memory that holds KSM pages is taken offline, and comes back",
        block_offline,
    )
    .on("x86:append=movablecore=384M")
    .memory("768M"),
];

const PAGES: usize = 16;

/// The page that breaks.
const BROKEN: usize = 5;

fn soft_offline(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let mut peers = holders(2, &content, 3)?;
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(16, 3 * 16, 0))?;
    let before = pagemap::frames(&left)?;

    step("every frame of the region is taken out of use");
    wait::until("frames that can be isolated", || {
        match left.advise_raw(libc::MADV_SOFT_OFFLINE) {
            Ok(()) => Ok(Some(())),
            // A page that waits in some CPU's LRU batch cannot be isolated yet.
            Err(error) if error.downcast_ref() == Some(&Errno::EBUSY) => Ok(None),
            Err(error) => Err(error),
        }
    })?;
    let after = pagemap::frames(&left)?;
    let stayed = before.iter().filter(|frame| after.contains(frame)).count();
    ensure!(stayed == 0, "{stayed} frames are still in use");
    ensure_shared(&left, &right)?;
    left.verify(&content)?;
    right.verify(&content)?;
    verify_all(&mut peers)?;

    step("the scanner goes on as before");
    let late = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(16, 4 * 16, 0))?;
    late.verify(&content)?;
    verify_all(&mut peers)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    left.verify(&content)?;
    verify_all(&mut peers)?;
    join_all(peers)
}

/// Says whether this process wants to be killed as soon as its memory breaks.
fn set_early_kill(early: bool) -> Result<()> {
    // The language's own handler, for stack overflows, would survive the signal once.
    // SAFETY: The default action is no function of ours.
    unsafe { signal(Signal::SIGBUS, SigHandler::SigDfl) }.context("signal")?;
    let policy = if early {
        libc::PR_MCE_KILL_EARLY
    } else {
        libc::PR_MCE_KILL_LATE
    };
    // SAFETY: The option takes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_MCE_KILL, libc::PR_MCE_KILL_SET, policy, 0, 0) })
        .map(drop)
        .context("PR_MCE_KILL")
}

/// Holds `content`; reads the pages that it is told to read, until told to read none.
fn reader(content: &[u8], early: bool) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        set_early_kill(early)?;
        let region = Region::mergeable(content)?;
        link.step()?;
        read_as_told(link, &region, content)
    })?;
    peer.await_step()?;
    Ok(peer)
}

fn read_as_told(link: &mut Link, region: &Region, content: &[u8]) -> Result<()> {
    while let Some(index) = link.receive::<Option<usize>>()? {
        let expected = &content[index * PAGE_SIZE..][..PAGE_SIZE];
        ensure!(region.page(index) == expected, "DATA LOST in page {index}");
        link.step()?;
    }
    Ok(())
}

fn read_page(peer: &mut Peer, index: usize) -> Result<()> {
    peer.send(Some(index))?;
    peer.await_step()
}

/// Waits for the end of a process by SIGBUS.
fn expect_bus_error(peer: &Peer) -> Result<()> {
    match waitpid(peer.pid(), None).context("waitpid")? {
        WaitStatus::Signaled(_, Signal::SIGBUS, _) => Ok(()),
        status => bail!("process {} has {status:?}, not SIGBUS", peer.pid()),
    }
}

/// Holds `content`, and breaks one page when told to.
fn injector(content: &[u8]) -> Result<Peer> {
    let mut injector = Peer::fork(|link| {
        set_early_kill(false)?;
        let mut region = Region::mergeable(content)?;
        link.step()?;
        link.await_step()?;
        break_own_page(&mut region)
    })?;
    injector.await_step()?;
    Ok(injector)
}

fn break_own_page(region: &mut Region) -> Result<()> {
    let mut broken = region.split_off(BROKEN)?;
    drop(broken.split_off(1)?);
    broken.advise_raw(libc::MADV_HWPOISON)
}

/// Has the page broken, which ends the process that does it.
fn break_page(mut injector: Peer) -> Result<()> {
    injector.step()?;
    expect_bus_error(&injector)?;
    std::mem::forget(injector);
    Ok(())
}

fn equal_after_failure(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, PAGES);
    let injector = injector(&content)?;
    let early = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(16, 16, 0))?;
    let frames = pagemap::frames(&early)?;

    step("the scanner sees another one, with the same content, for the first time");
    scanner.scan_on_demand()?;
    let late = Region::mergeable(&content)?;
    ensure!(
        late.address() < early.address(),
        "it would be scanned after the broken page's mapping is collected"
    );
    scanner.scan_once()?;
    let now = ksm::counters()?;
    ensure!(
        now.volatile == PAGES as u64 && now.sharing == 16,
        "not seen, or not once: {now}"
    );
    step("page 5 breaks; the others merge");
    break_page(injector)?;
    scanner.scan_once()?;
    for (index, frame) in pagemap::frames(&late)?.into_iter().enumerate() {
        ensure!(
            (frame == frames[index]) == (index != BROKEN),
            "page {index} is in frame {frame}, as was {}",
            frames[index]
        );
    }
    late.verify(&content)?;
    step("later, it merges with another");
    let last = Region::mergeable(&content)?;
    for _ in 0..3 {
        scanner.scan_once()?;
    }
    ensure_shared(&late, &last)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    late.verify(&content)
}

fn copied_before_failure(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut content = pattern::pages(6, PAGES);
    let mut twins = [
        Region::with_content(&content)?,
        Region::with_content(&content)?,
    ];
    let mut child = Peer::fork(|link| {
        set_early_kill(false)?;
        twins.iter().try_for_each(Region::advise_mergeable)?;
        link.step()?;
        link.await_step()?;
        break_own_page(&mut twins[0])
    })?;
    child.await_step()?;
    scanner.expect(Counters::stable(16, 16, 0))?;
    ksm::set_run(Run::Stop)?;
    let mut merged = 0;
    for twin in &twins {
        merged += usize::from(pagemap::is_ksm(pagemap::frames(twin)?[BROKEN])?);
    }
    ensure!(
        merged == 1,
        "{merged} of the parent's pages became that of its child"
    );

    step("a parent writes to its pages, and so has copies when that of its child breaks");
    set_early_kill(true)?;
    for twin in &mut twins {
        twin.page_mut(BROKEN)[0] ^= 1;
    }
    content[BROKEN * PAGE_SIZE] ^= 1;
    break_page(child)?;
    step("it lives on");
    twins.iter().try_for_each(|twin| twin.verify(&content))
}

fn hard_failure(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, PAGES);
    let other_content = pattern::pages(3, PAGES);
    let early = reader(&content, true)?;
    let mut late = reader(&content, false)?;
    let mut unrelated = reader(&other_content, true)?;
    let injector = injector(&content)?;
    scanner.expect(Counters::stable(16, 2 * 16, 16))?;
    ksm::set_run(Run::Stop)?;

    step("page 5 breaks");
    break_page(injector)?;
    step("who broke it, and who asked to be killed early, gets SIGBUS at once");
    expect_bus_error(&early)?;
    std::mem::forget(early);
    step("who did not lives on, and reads all other pages");
    for index in (0..PAGES).filter(|&index| index != BROKEN) {
        read_page(&mut late, index)?;
    }
    step("other processes are left alone");
    for index in 0..PAGES {
        read_page(&mut unrelated, index)?;
    }
    step("until the broken page is touched");
    late.send(Some(BROKEN))?;
    expect_bus_error(&late)?;
    std::mem::forget(late);

    step("the scanner goes on: the same content merges in other frames");
    ksm::set_run(Run::Merge)?;
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    let now = scanner.settle()?;
    ensure!(now.sharing == 16, "not everything is merged: {now}");
    left.verify(&content)?;
    right.verify(&content)?;
    unrelated.send(None::<usize>)?;
    unrelated.join()?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    left.verify(&content)
}

fn block_offline(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(4, 1024);
    let mut peers = holders(2, &content, 5)?;
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(1024, 3 * 1024, 0))?;
    let block = Block::of(pagemap::frames(&left)?[512])?;
    if !block.is_movable()? {
        return Err(Skip("the pages lie in no movable block of memory".into()).into());
    }
    let inside = |region: &Region| -> Result<usize> {
        let frames = pagemap::frames(region)?;
        Ok(frames
            .iter()
            .filter(|frame| block.frames().contains(frame))
            .count())
    };
    step(format!(
        "{} KSM pages lie in {}",
        inside(&left)?,
        block.directory().display()
    ));
    for round in 0..2 {
        block.take_offline()?;
        step(format!("round {round}: it is offline"));
        ensure!(inside(&left)? == 0, "pages are in offline memory");
        ensure_shared(&left, &right)?;
        left.verify(&content)?;
        right.verify(&content)?;
        verify_all(&mut peers)?;
        scanner.expect(Counters::stable(1024, 3 * 1024, 0))?;
        block.bring_online()?;
        step("and online again; everything is unmerged and merged anew");
        ksm::set_run(Run::Unmerge)?;
        left.verify(&content)?;
        verify_all(&mut peers)?;
        ksm::set_run(Run::Merge)?;
        scanner.expect(Counters::stable(1024, 3 * 1024, 0))?;
    }
    left.verify(&content)?;
    right.verify(&content)?;
    for peer in peers {
        peer.kill()?;
    }
    Ok(())
}
