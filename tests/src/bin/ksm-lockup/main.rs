// SPDX-License-Identifier: GPL-2.0

//! A process ends while the scanner waits for another one's mmap lock; to be run as root inside a VM.
//!
//! The kernel's module `test_lockup` holds the mmap lock of whoever loads it, for as many seconds as
//! it is told. That stands for all that can take so long under that lock: a FUSE server that does not
//! answer an mmap, for one. Memory of the process that ends must be free long before.

use std::{
    ffi::CString,
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use clap::Parser;
use ksm_tests::{
    ksm::{self, Scanner},
    peer::Peer,
    procfs,
    region::Region,
    wait, MIB, PAGE_SIZE,
};
use nix::kmod::{finit_module, ModuleInitFlags};

#[derive(Parser)]
#[command(about = "A process ends while ksmd waits for another one's mmap lock")]
struct Options {
    /// The file of the module `test_lockup`.
    module: PathBuf,

    /// How long the lock is held.
    #[arg(long, default_value_t = 10)]
    seconds: u32,
}

/// Pages that both processes have; a step scans those of one.
const PAGES: usize = 64;

/// More pages than there are.
const ALL: usize = 1_000_000;

/// Memory of the process that ends, none of which is offered to KSM.
const BALLAST: usize = 64 * MIB;

/// Parts of the time for which the lock is held: to wait for ksmd to come to it, and then for the
/// memory.
const WAYS: u32 = 4;

/// A process with some memory whose pages become equal to those of the one that holds its lock, when
/// it is told to.
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

/// Different pages, beginning with number `first`.
fn number(memory: &mut [u8], first: usize) {
    for (index, page) in memory.chunks_exact_mut(PAGE_SIZE).enumerate() {
        page[..size_of::<usize>()].copy_from_slice(&(first + index).to_ne_bytes());
    }
}

/// A process that holds its mmap lock for so long when it is told to.
fn lock_holder(module: &Path, seconds: u32) -> Result<Peer> {
    let module = File::open(module).with_context(|| format!("no {}", module.display()))?;
    let mut peer = Peer::fork(|link| {
        link.wait_for_ever()?;
        let mut region = Region::new(PAGES)?;
        number(region.bytes_mut(), PAGES);
        region.advise_mergeable()?;
        link.step()?;
        link.await_step()?;
        let arguments = format!("lock_mmap_sem=1 state=S time_secs={seconds}");
        let arguments = CString::new(arguments)?;
        // It ends with an error, so that it need not be unloaded.
        let result = finit_module(&module, &arguments, ModuleInitFlags::empty());
        ensure!(result == Err(nix::Error::EAGAIN), "test_lockup: {result:?}");
        link.step()?;
        link.await_end()
    })?;
    peer.await_step()?;
    Ok(peer)
}

/// Stops where the next step begins with the pages of the process that is about to end.
///
/// Which of two processes is scanned first cannot be chosen. So it is found out: pages that have
/// changed are not in the unstable tree any more when they have been scanned.
fn stop_before_the_dying(scanner: &Scanner) -> Result<()> {
    ksm::write("pages_to_scan", PAGES)?;
    scanner.take_step()?;
    let is_first = match ksm::counters()?.unshared as usize {
        PAGES => true,
        unshared if unshared == 2 * PAGES => false,
        unshared => bail!("{unshared} pages are unshared in the middle of a scan"),
    };
    ksm::write("pages_to_scan", ALL)?;
    scanner.scan_once()?;
    ksm::write("pages_to_scan", PAGES)?;
    if !is_first {
        scanner.take_step()?;
    }
    Ok(())
}

fn main() -> Result<()> {
    let options = Options::parse();
    let scanner = Scanner::prepare()?;
    let mut dying = dying()?;
    let mut holder = lock_holder(&options.module, options.seconds)?;
    ksm::write("pages_to_scan", ALL)?;
    scanner.scan_on_demand()?;
    scanner.scan_once()?;
    let now = ksm::counters()?;
    ensure!(
        now == ksm::Counters::stable(0, 0, 2 * PAGES as u64),
        "{now}"
    );
    dying.round()?;
    stop_before_the_dying(&scanner)?;

    println!("a process holds its mmap lock for {} s", options.seconds);
    let way = Duration::from_secs(options.seconds.into()) / WAYS;
    let begin = Instant::now();
    holder.step()?;
    await_lockup()?;
    let pause: u32 = ksm::read("sleep_millisecs")?;
    ksm::write("sleep_millisecs", pause + 1)?;
    thread::sleep(way);
    println!(
        "ksmd is in state {}",
        procfs::process_state(procfs::Ksmd::find()?.pid())?
    );

    let before = procfs::free_pages()?;
    dying.kill()?;
    thread::sleep(way);
    let freed = (procfs::free_pages()? as usize).saturating_sub(before as usize) * PAGE_SIZE;
    println!(
        "{} MiB of {} are free {way:?} after the process that has them was killed",
        freed / MIB,
        BALLAST / MIB
    );
    ensure!(
        begin.elapsed().as_secs() < options.seconds.into(),
        "the lock is held no longer, so this shows nothing"
    );
    ensure!(
        freed > BALLAST * 9 / 10,
        "FAILED: ksmd keeps the memory of a process that has ended while it waits for another one"
    );
    holder.await_step()?;
    println!("passed");
    Ok(())
}

/// Waits until the module is being loaded.
fn await_lockup() -> Result<()> {
    wait::until("test_lockup", || {
        let modules = fs::read_to_string("/proc/modules").context("/proc/modules")?;
        Ok(modules.contains("test_lockup").then_some(()))
    })
}
