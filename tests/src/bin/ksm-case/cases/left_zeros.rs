// SPDX-License-Identifier: GPL-2.0

//! Zero pages that a module has placed before it went. A process that takes the advice back has to get
//! pages of its own for them, though there is no module that could see to it.

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    cgroup::Cgroup,
    control_file,
    ksm::{self, Run, Scanner},
    merge_any, module, pattern,
    peer::Peer,
    procfs::{self, KsmStat},
    quiet_console::QuietConsole,
    region::Region,
    timer::PeriodicTimer,
    userfault::{Mode, UserFault},
    MIB, PAGE_SIZE,
};
use nix::{
    errno::Errno,
    sys::mman::{mlockall, MlockAllFlags},
};

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_own_frames, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "rmmod-zeros",
        "zero pages left by the module part by madvise, prctl and mremap, and by the next module",
        take_back,
    )
    .unloaded(),
    Case::new(
        "rmmod-zeros-guarded",
        "zero pages left by the module that userfaultfd guards keep the advice, the others part",
        guarded,
    )
    .unloaded()
    .on("x86"),
    Case::new(
        "rmmod-zeros-enomem",
        "without memory for the copies zero pages left by the module keep the advice",
        without_memory,
    )
    .unloaded(),
    Case::new(
        "rmmod-zeros-signal",
        "a signal ends the parting of many zero pages left by the module, which can go on later",
        interrupted,
    )
    .unloaded(),
];

const PAGES: usize = 32;

/// A region of 16 GiB, of which next to nothing is there.
const SPARSE_PAGES: usize = 1 << 22;

/// Loads the module, and has a scanner place zero pages.
fn load() -> Result<Scanner> {
    module::load(&module::file().context("$KSM_RS_KO is not set")?)?;
    let scanner = Scanner::prepare()?;
    ksm::write("use_zero_pages", 1)?;
    ksm::set_run(Run::Merge)?;
    Ok(scanner)
}

/// Unloads the module when it has replaced all pages of zeros.
fn unload(scanner: &Scanner) -> Result<()> {
    scanner.settle()?;
    ksm::set_run(Run::Stop)?;
    module::unload()?;
    module::ensure_gone()
}

/// Writes zeros, so that these pages exist.
fn write_zeros(region: &mut Region, pages: impl IntoIterator<Item = usize>) {
    for page in pages {
        region.page_mut(page).fill(1);
        region.page_mut(page).fill(0);
    }
}

/// A region of written zeros that offers itself to nobody yet.
fn zeros(pages: usize) -> Result<Region> {
    let mut region = Region::new(pages)?;
    write_zeros(&mut region, 0..pages);
    Ok(region)
}

fn advised_zeros(pages: usize) -> Result<Region> {
    let region = zeros(pages)?;
    region.advise_mergeable()?;
    Ok(region)
}

fn verify(region: &Region) -> Result<()> {
    region.verify(&vec![0; region.len()])
}

fn own_zero_pages() -> Result<usize> {
    Ok(KsmStat::read("self")?.zero_pages.try_into()?)
}

/// Fails unless this process has so many zero pages that were placed.
fn expect(pages: usize) -> Result<()> {
    let found = own_zero_pages()?;
    ensure!(
        found == pages,
        "ksm_stat says {found} zero pages, not {pages}"
    );
    Ok(())
}

fn take_back(_: &Options) -> Result<()> {
    let mut merge_any = Peer::fork(|link| {
        merge_any::set(true)?;
        let region = zeros(PAGES)?;
        link.step()?;
        link.await_step()?;
        expect(PAGES)?;
        merge_any::set(false)?;
        expect(0)?;
        ensure_own_frames(&region)?;
        verify(&region)
    })?;
    merge_any.await_step()?;

    let mut advised = advised_zeros(PAGES)?;
    let mut moved = advised_zeros(PAGES)?;
    let mut sparse = Region::new(SPARSE_PAGES)?;
    let corners = [0, SPARSE_PAGES / 2, SPARSE_PAGES - 1];
    write_zeros(&mut sparse, corners);
    sparse.advise_mergeable()?;
    let scanner = load()?;
    unload(&scanner)?;
    expect(2 * PAGES + 3)?;

    step("the module has gone; MADV_UNMERGEABLE of one half");
    let mut rest = advised.split_off(PAGES / 2)?;
    advised.advise_unmergeable()?;
    expect(PAGES / 2 + PAGES + 3)?;
    ensure_own_frames(&advised)?;
    step("a write to the other half");
    rest.page_mut(0)[5] = 1;
    expect(PAGES / 2 - 1 + PAGES + 3)?;
    rest.page_mut(0)[5] = 0;

    step("a child has the same, and takes back the advice for its own");
    Peer::fork(|_| {
        expect(PAGES / 2 - 1 + PAGES + 3)?;
        rest.advise_unmergeable()?;
        expect(PAGES + 3)?;
        verify(&rest)
    })?
    .join()?;
    expect(PAGES / 2 - 1 + PAGES + 3)?;

    step("mremap");
    moved.relocate()?;
    expect(PAGES / 2 - 1 + 3)?;
    ensure_own_frames(&moved)?;
    step("three pages in 16 GiB");
    sparse.advise_unmergeable()?;
    expect(PAGES / 2 - 1)?;
    step("PR_SET_MEMORY_MERGE");
    merge_any.step()?;
    merge_any.join()?;

    step("and the next module takes what is left");
    drop(scanner);
    let scanner = load()?;
    ksm::set_run(Run::Unmerge)?;
    expect(0)?;
    let all: i64 = ksm::read("ksm_zero_pages")?;
    ensure!(all == 0, "ksm_zero_pages is {all}");
    drop(scanner);
    module::unload()?;
    [&advised, &rest, &moved].into_iter().try_for_each(verify)?;
    for page in corners {
        ensure!(sparse.page(page) == [0; PAGE_SIZE], "page {page} is lost");
    }
    Ok(())
}

fn guarded(_: &Options) -> Result<()> {
    let none = Skip("userfaultfd cannot tell of any access here".into());
    let uffd = UserFault::for_access()?.ok_or(none)?;
    let region = advised_zeros(2 * PAGES)?;
    let scanner = load()?;
    ensure!(uffd.register(&region, Mode::Access)?, "not registered");
    unload(&scanner)?;
    expect(2 * PAGES)?;

    let mut left = region;
    let right = left.split_off(PAGES)?;
    uffd.keep_out(&left, true)?;
    step("half is guarded");
    ensure!(left.try_advise_unmergeable() == Err(Errno::EBUSY));
    expect(2 * PAGES)?;
    ensure!(procfs::is_mergeable(&left)?, "the advice is gone");
    step("the other half is not");
    right.advise_unmergeable()?;
    expect(PAGES)?;
    ensure_own_frames(&right)?;
    step("nobody is kept out any more");
    uffd.keep_out(&left, false)?;
    left.advise_unmergeable()?;
    expect(0)?;
    ensure_own_frames(&left)?;
    verify(&left)?;
    verify(&right)
}

/// Zero pages that have to part all at once: 16 MiB.
const MANY_PAGES: usize = 4096;

/// Pages that a process gives back when it has to do other things than to unmerge.
const BALLAST_PAGES: usize = 512;

fn without_memory(_: &Options) -> Result<()> {
    let mut quiet = QuietConsole::new()?;
    // Else the process would have to read the code that it shares, for which there is no room.
    mlockall(MlockAllFlags::MCL_CURRENT).context("mlockall")?;
    let group = Cgroup::new("left")?;
    group.limit_swap(0)?;
    let mut peer = Peer::fork(|link| {
        link.await_step()?;
        // What cannot get memory is to fail, and not to end this process.
        control_file::write("/proc/self/oom_score_adj", -1000)?;
        let region = advised_zeros(MANY_PAGES)?;
        let mut ballast = Region::with_content(&pattern::pages(1, BALLAST_PAGES))?;
        link.step()?;
        link.await_step()?;
        let result = region.try_advise_unmergeable();
        // Whatever is done from here on takes memory.
        ballast.discard()?;
        link.step()?;
        link.await_step()?;
        ensure!(
            matches!(result, Err(Errno::ENOMEM | Errno::EAGAIN)),
            "unexpected: {result:?}"
        );
        ensure!(procfs::is_mergeable(&region)?, "the advice is gone");
        let left = own_zero_pages()?;
        ensure!((1..MANY_PAGES).contains(&left), "{left} zero pages left");
        region.advise_unmergeable()?;
        expect(0)?;
        ensure_own_frames(&region)?;
        verify(&region)
    })?;
    group.add(peer.pid())?;
    peer.round()?;
    let scanner = load()?;
    unload(&scanner)?;
    group.limit(group.usage()? + 2 * MIB)?;
    step("room for 512 of 4096 pages");
    peer.round()?;
    group.limit("max")?;
    step("room for all");
    peer.step()?;
    peer.join()?;
    quiet.check()
}

fn interrupted(_: &Options) -> Result<()> {
    let region = advised_zeros(MANY_PAGES)?;
    let scanner = load()?;
    unload(&scanner)?;
    let timer = PeriodicTimer::start()?;
    let mut interruptions = 0;
    let mut left = MANY_PAGES;
    while let Err(error) = region.try_advise_unmergeable() {
        ensure!(error == Errno::EINTR, "{error}");
        interruptions += 1;
        let now = own_zero_pages()?;
        ensure!(now < left, "no page has parted");
        left = now;
    }
    drop(timer);
    step(format!("done after {interruptions} interruptions"));
    ensure!(interruptions > 0, "no signal has ended it");
    expect(0)?;
    ensure_own_frames(&region)?;
    verify(&region)
}
