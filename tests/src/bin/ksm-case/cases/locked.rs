// SPDX-License-Identifier: GPL-2.0

//! A process that holds its own mmap lock for long, while the scanner wants it.

use std::{thread, time::Duration};

use anyhow::{bail, ensure, Result};
use ksm_tests::{
    ksm::{self, Counters, Scanner},
    lockup::Lockup,
    peer::Peer,
    procfs::{self, KsmStat, Ksmd},
    region::Region,
    wait, MIB, PAGE_SIZE,
};

use crate::{
    case::{Case, Options, Skip},
    helpers::step,
};

pub const CASES: &[Case] = &[Case::new(
    "ended-locked",
    "the memory of an ended process does not wait for another process's mmap lock",
    ended,
)
// Where User Mode Linux has 512 MiB, it loads modules too high up for test_lockup; a test has 256 MiB
// more than it asks for in a debug kernel.
.on("um:mem=160M,x86")];

/// Advised pages that both processes have; a step scans those of one.
const PAGES: usize = 64;

/// More pages than there are.
const ALL: usize = 1_000_000;

/// Memory of the process that ends, none of which is advised.
const BALLAST: usize = 64 * MIB;

/// For so long the lock is held, even if all else is slow.
const SECONDS: u32 = 20;

/// Writes different pages, beginning with number `first`.
fn number(memory: &mut [u8], first: usize) {
    for (index, page) in memory.chunks_exact_mut(PAGE_SIZE).enumerate() {
        page[..size_of::<usize>()].copy_from_slice(&(first + index).to_ne_bytes());
    }
}

/// A process that first has pages of its own, and later pages equal to those of [`lock_holder`].
fn dying() -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        link.wait_for_ever()?;
        let mut ballast = Region::new(BALLAST / PAGE_SIZE)?;
        ballast.bytes_mut().fill(1);
        let mut region = Region::new(PAGES)?;
        number(region.bytes_mut(), 2 * PAGES);
        region.advise_mergeable()?;
        link.step()?;
        link.await_step()?;
        number(region.bytes_mut(), PAGES);
        link.step()?;
        link.await_end()
    })?;
    peer.await_step()?;
    Ok(peer)
}

/// A process that holds its mmap lock for [`SECONDS`] when it is told to.
fn lock_holder(lockup: Lockup) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        link.wait_for_ever()?;
        let mut region = Region::new(PAGES)?;
        number(region.bytes_mut(), PAGES);
        region.advise_mergeable()?;
        link.step()?;
        link.await_step()?;
        lockup.hold_mmap_lock(SECONDS)?;
        link.step()?;
        link.await_end()
    })?;
    peer.await_step()?;
    Ok(peer)
}

/// Takes steps of one process each until one of the two is known; returns whether that is `first`.
fn is_scanned_before(scanner: &Scanner, first: &Peer, second: &Peer) -> Result<bool> {
    let items = |peer: &Peer| Ok::<_, anyhow::Error>(KsmStat::read(peer.pid())?.rmap_items);
    loop {
        scanner.take_step()?;
        match (items(first)? > 0, items(second)? > 0) {
            (false, false) => {}
            (true, true) => bail!("a step has scanned both processes"),
            (is_first, _) => return Ok(is_first),
        }
    }
}

/// Has the scanner rest where its next step begins with the pages of `dying`, which have changed, been
/// seen so, and become equal to those of `holder`.
fn stop_before(scanner: &Scanner, dying: &mut Peer, holder: &Peer) -> Result<()> {
    ksm::write("pages_to_scan", PAGES)?;
    let is_first = is_scanned_before(scanner, dying, holder)?;
    ksm::write("pages_to_scan", ALL)?;
    scanner.scan_once()?;
    scanner.scan_once()?;
    let now = ksm::counters()?;
    ensure!(now == Counters::stable(0, 0, 2 * PAGES as u64), "{now}");
    dying.round()?;
    scanner.scan_once()?;
    if !is_first {
        // One more than the other process has, or the scanner would still be there.
        ksm::write("pages_to_scan", PAGES + 1)?;
        scanner.take_step()?;
    }
    Ok(())
}

/// Lets the scanner go on, and waits until it either waits for a lock or has ended its step.
fn start_step() -> Result<()> {
    let thread = Ksmd::find()?;
    let sleeps = thread.sleeps()?;
    let pause: u32 = ksm::read("sleep_millisecs")?;
    ksm::write("sleep_millisecs", pause + 1)?;
    let state = wait::until("ksmd to wait", || {
        let state = procfs::process_state(thread.pid())?;
        let has_ended = thread.is_asleep()? && thread.sleeps()? > sleeps;
        Ok((state == 'D' || has_ended).then_some(state))
    })?;
    // Long enough for all that is not a wait for that lock.
    thread::sleep(Duration::from_millis(100));
    step(format!("ksmd was in state {state}"));
    Ok(())
}

fn ended(_: &Options) -> Result<()> {
    let Some(lockup) = Lockup::open()? else {
        return Err(Skip("this kernel does not load test_lockup".into()).into());
    };
    let scanner = Scanner::prepare()?;
    scanner.scan_on_demand()?;
    let mut dying = dying()?;
    let mut holder = lock_holder(lockup)?;
    stop_before(&scanner, &mut dying, &holder)?;

    step(format!("a process holds its mmap lock for {SECONDS} s"));
    holder.step()?;
    wait::until("the lock to be held", || {
        let sleeps = || anyhow::Ok(procfs::process_state(holder.pid())? == 'S');
        Ok((Lockup::is_held()? && sleeps()?).then_some(()))
    })?;
    start_step()?;

    step("another one, whose pages have their equals there, is killed");
    let before = procfs::free_pages()?;
    dying.kill()?;
    wait::until("the memory of the killed process", || {
        let now = procfs::free_pages()?;
        let freed = now.saturating_sub(before) as usize * PAGE_SIZE;
        ensure!(
            Lockup::is_held()?,
            "ksmd kept the memory of an ended process until another one had given up its mmap lock"
        );
        Ok((freed > BALLAST * 9 / 10).then_some(()))
    })?;
    step("its memory is free, and the lock is still held");
    holder.await_step()
}
