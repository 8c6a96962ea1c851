// SPDX-License-Identifier: GPL-2.0

//! Loading and unloading the module beside processes that use KSM.

use std::thread;

use anyhow::{bail, ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    memory_block::Block,
    memory_use::MemoryUse,
    merge_any, module, pagemap, pattern,
    peer::{Link, Peer},
    procfs::{self, KsmStat},
    region::Region,
    wait, PAGE_SIZE,
};
use nix::errno::Errno;

use crate::{
    case::{Case, Options, Skip},
    helpers::{
        ensure_merging_pages, ensure_shared, exec, holders, join_all, splice, step, verify_all,
        AfterExec,
    },
};

pub const CASES: &[Case] = &[
    Case::new(
        "unloaded",
        "with no module, madvise and prctl mark memory and succeed",
        unloaded,
    )
    .unloaded(),
    Case::new(
        "adopt-madvise",
        "memory advised before the module came is merged, and again after a reload",
        adopt_madvise,
    )
    .unloaded(),
    Case::new(
        "adopt-merge-any",
        "a merge-any process from before the module came is merged",
        adopt_merge_any,
    )
    .unloaded(),
    Case::new(
        "adopt-leaderless",
        "a process whose first thread has exited is adopted too",
        adopt_leaderless,
    )
    .unloaded(),
    Case::new(
        "adopt-forking",
        "while the module comes an advised process forks: its children are all adopted",
        adopt_forking,
    )
    .unloaded(),
    Case::new(
        "rmmod-busy",
        "the module cannot be unloaded while pages are merged",
        rmmod_busy,
    )
    .unloaded(),
    Case::new(
        "rmmod-leftovers",
        "what run=2 must leave is collected when its last user has ended, and the module can go",
        rmmod_leftovers,
    )
    .unloaded(),
    Case::new(
        "rmmod-offlining",
        "the module can be unloaded while memory is going offline, and tasks that wait for it go on",
        rmmod_offlining,
    )
    .unloaded()
    .on("x86:append=movablecore=384M")
    .memory("768M"),
    Case::new(
        "reload-50",
        "fifty times loaded, used and unloaded, the module gives all memory back",
        reload_50,
    )
    .unloaded(),
    Case::new(
        "given-back",
        "run=2 gives back every page and all records of them, and rmmod the rest",
        given_back,
    )
    .unloaded(),
];

const PAGES: usize = 64;

fn load() -> Result<()> {
    module::load(&module::file().context("$KSM_RS_KO is not set")?)
}

/// Unloads the module and makes sure that nothing of it is left to see.
fn unload() -> Result<()> {
    module::unload()?;
    module::ensure_gone()
}

fn unloaded(_: &Options) -> Result<()> {
    step("before the first load");
    Peer::fork(|_| register())?.join()?;
    load()?;
    unload()?;
    step("after a load and an unload");
    Peer::fork(|_| register())?.join()
}

/// Registers by every way there is, and takes it back.
fn register() -> Result<()> {
    let content = pattern::pages(1, PAGES);
    let region = Region::mergeable(&content)?;
    ensure!(procfs::is_mergeable(&region)?, "no mg after madvise");
    ensure_merging_pages(0)?;
    region.advise_unmergeable()?;
    ensure!(!procfs::is_mergeable(&region)?, "mg is still there");

    merge_any::set(true).context("PR_SET_MEMORY_MERGE")?;
    ensure!(merge_any::get()?, "PR_GET_MEMORY_MERGE says no");
    ensure!(procfs::is_mergeable(&region)?, "no mg after prctl");
    let mut child = Peer::fork(|link| {
        ensure!(merge_any::get()?, "lost by fork");
        exec(link)
    })?;
    ensure!(child.receive::<AfterExec>()?.merge_any, "lost by execve");
    child.kill()?;

    merge_any::set(false).context("PR_SET_MEMORY_MERGE to 0")?;
    ensure!(!merge_any::get()?, "PR_GET_MEMORY_MERGE still says yes");
    ensure!(!procfs::is_mergeable(&region)?, "mg after prctl off");
    region.verify(&content)
}

fn adopt_madvise(_: &Options) -> Result<()> {
    let content = pattern::pages(2, PAGES);
    let mut peers = holders(3, &content, 3)?;
    for round in 1..=2 {
        step(format!("load number {round} finds three advised processes"));
        load()?;
        let scanner = Scanner::start()?;
        scanner.expect(Counters::stable(64, 2 * 64, 0))?;
        verify_all(&mut peers)?;
        drop(scanner);
        unload()?;
    }
    verify_all(&mut peers)?;
    join_all(peers)
}

/// Holds two equal regions, lets the module come, and finds them merged.
fn be_adopted(link: &mut Link, make: fn(&[u8]) -> Result<Region>) -> Result<()> {
    let content = pattern::pages(3, PAGES);
    let left = make(&content)?;
    let right = make(&content)?;
    link.step()?;
    link.await_step()?;
    ensure_shared(&left, &right)?;
    left.verify(&content)?;
    right.verify(&content)?;
    link.step()
}

/// Loads the module beside `peer`, lets it look at its memory after some scans, and unloads.
fn adopt(peer: &mut Peer) -> Result<()> {
    peer.await_step()?;
    load()?;
    let scanner = Scanner::start()?;
    scanner.settle()?;
    peer.round()?;
    drop(scanner);
    unload()
}

fn adopt_merge_any(_: &Options) -> Result<()> {
    let mut peer = Peer::fork(|link| {
        merge_any::set(true)?;
        be_adopted(link, Region::with_content)
    })?;
    adopt(&mut peer)?;
    peer.join()
}

fn adopt_leaderless(_: &Options) -> Result<()> {
    let mut peer = Peer::fork(|link| {
        let mut link = Link::new(link.socket()?.into())?;
        thread::spawn(move || {
            let result = be_adopted(&mut link, Region::mergeable);
            // Nobody joins this thread: it ends the process.
            std::process::exit(match result {
                Ok(()) => 0,
                Err(error) => {
                    let _ = link.send_error(&error);
                    1
                }
            })
        });
        exit_thread()
    })?;
    wait::until("the first thread's end", || {
        Ok((procfs::process_state(peer.pid())? == 'Z').then_some(()))
    })?;
    step("the process lives on in its second thread");
    adopt(&mut peer)?;
    peer.join()
}

/// So much that a fork takes a while.
const BULK_PAGES: usize = 4096;

/// Loads of the module: not each has a fork under way when it is the parent's turn.
const FORKING_ROUNDS: usize = 10;

fn adopt_forking(_: &Options) -> Result<()> {
    for round in 1..=FORKING_ROUNDS {
        let mut parent = Peer::fork(fork_on)?;
        parent.await_step()?;
        load()?;
        parent.step()?;
        let children: Vec<i32> = parent.receive()?;
        step(format!("load number {round}: {} children", children.len()));
        let scanner = Scanner::start()?;
        scanner.scans(2)?;
        for pid in children {
            ensure!(
                KsmStat::read(pid)?.rmap_items > 0,
                "process {pid} was not adopted"
            );
        }
        parent.step()?;
        parent.join()?;
        drop(scanner);
        unload()?;
    }
    Ok(())
}

/// Forks until it is told to stop, says whom, and keeps them for another step.
fn fork_on(link: &mut Link) -> Result<()> {
    let _bulk = Region::with_content(&pattern::pages(8, BULK_PAGES))?;
    let _advised = Region::mergeable(&pattern::pages(9, 1))?;
    let fork = || {
        Peer::fork(|link| {
            link.wait_for_ever()?;
            link.await_step()
        })
    };
    let mut children = vec![fork()?];
    link.step()?;
    while !link.has_message()? {
        children.push(fork()?);
    }
    link.await_step()?;
    link.send(
        children
            .iter()
            .map(|child| child.pid().as_raw())
            .collect::<Vec<_>>(),
    )?;
    link.await_step()
}

/// Ends the calling thread and leaves the rest of the process alone.
fn exit_thread() -> ! {
    // SAFETY: The thread's stack is not freed, so what other threads borrow from it stays.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("exit returned");
}

fn rmmod_busy(_: &Options) -> Result<()> {
    load()?;
    let scanner = Scanner::start()?;
    let content = pattern::pages(4, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(64, 64, 0))?;

    step("refused while the scanner runs, and while it rests");
    expect_busy()?;
    ksm::set_run(Run::Stop)?;
    expect_busy()?;
    ensure_shared(&left, &right)?;
    left.verify(&content)?;
    right.verify(&content)?;

    step("allowed after run=2");
    ksm::set_run(Run::Unmerge)?;
    unload()?;
    left.verify(&content)?;
    right.verify(&content)
}

fn expect_busy() -> Result<()> {
    match module::try_unload() {
        // What the system call says of a module that is in use, and what `rmmod` makes of it.
        Err(Errno::EAGAIN | Errno::EBUSY) => Ok(()),
        other => bail!("unloading while pages are merged gives {other:?}"),
    }
}

fn rmmod_leftovers(_: &Options) -> Result<()> {
    load()?;
    let content = pattern::pages(5, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    let mut peer = Peer::fork(|link| {
        left.advise_unmergeable()?;
        right.advise_unmergeable()?;
        link.send(())?;
        link.receive::<()>()?;
        left.verify(&content)?;
        right.verify(&content)
    })?;
    peer.await_step()?;
    let scanner = Scanner::start()?;
    scanner.expect(Counters::stable(64, 64, 0))?;
    step("the scanner is in a pause without an end");
    scanner.scan_on_demand()?;

    step("a process without the advice has inherited what became KSM pages");
    ksm::set_run(Run::Unmerge)?;
    expect_busy()?;
    peer.step()?;
    peer.join()?;
    step("it has ended");
    wait::until("an unload", || match module::try_unload() {
        Ok(()) => Ok(Some(())),
        Err(Errno::EAGAIN | Errno::EBUSY) => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    left.verify(&content)?;
    right.verify(&content)
}

fn rmmod_offlining(_: &Options) -> Result<()> {
    load()?;
    let region = Region::with_content(&pattern::pages(7, 1))?;
    let block = Block::of(pagemap::frames(&region)?[0])?;
    if !block.is_movable()? {
        return Err(Skip("the page lies in no movable block of memory".into()).into());
    }
    step("a page in a pipe keeps memory from going offline");
    let pipe = splice(&region)?;
    let offliner = Peer::fork(|_| block.take_offline())?;
    let writer = wait::until("a write that waits for its end", blocked_writer)?;
    step("the module goes before that has an end");
    unload()?;
    // Its file may have gone before it got there.
    let _ = writer.join();
    offliner.kill()?;
    drop(pipe);
    step("and comes again");
    use_module()
}

/// A process that sets `run`, which the module lets nobody do while memory is going offline.
fn blocked_writer() -> Result<Option<Peer>> {
    let writer = Peer::fork(|_| ksm::set_run(Run::Stop))?;
    let state = wait::until("a writer that is done, or waits", || {
        let state = procfs::process_state(writer.pid())?;
        Ok(matches!(state, 'Z' | 'D').then_some(state))
    })?;
    if state == 'D' {
        return Ok(Some(writer));
    }
    writer.join()?;
    Ok(None)
}

/// Noise of others, in KiB.
const TOLERANCE: MemoryUse = MemoryUse {
    total: 1536,
    slab: 512,
    vmalloc: 256,
};

const WARM_UP_ROUNDS: usize = 5;
const ROUNDS: usize = 50;

/// Twins in a round: enough for a leak of their items alone, which lie in pages of their own, to
/// show in the end. Those take 16 bytes for each page, 2,160 KiB in 45 rounds.
const RELOAD_PAGES: usize = 1536;

fn reload_50(_: &Options) -> Result<()> {
    let caches_before = procfs::slab_caches()?;
    (0..WARM_UP_ROUNDS).try_for_each(|_| use_module())?;
    let before = MemoryUse::now()?;
    (WARM_UP_ROUNDS..ROUNDS).try_for_each(|_| use_module())?;
    let after = MemoryUse::now()?;

    step(format!("before: {before:?}"));
    step(format!("after:  {after:?}"));
    before.ensure_no_growth(&after, &TOLERANCE)?;
    let left_over: Vec<_> = procfs::slab_caches()?
        .into_iter()
        .filter(|name| name.contains("ksm") && !caches_before.contains(name))
        .collect();
    ensure!(left_over.is_empty(), "slab caches are left: {left_over:?}");
    Ok(())
}

/// Loads the module, merges, unmerges, and unloads it.
fn use_module() -> Result<()> {
    load()?;
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, RELOAD_PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    let pages = RELOAD_PAGES as u64;
    scanner.expect(Counters::stable(pages, pages, 0))?;
    ksm::set_run(Run::Unmerge)?;
    left.verify(&content)?;
    right.verify(&content)?;
    drop(scanner);
    unload()
}

/// Twins in [`given_back`].
const MANY_TWINS: usize = 8192;

/// What their nodes, of 24 bytes, and anchors, of 64, take from slabs at least, in KiB.
const RECORDS_KIB: i64 = 704;

/// What others may have taken meanwhile, in KiB.
const NOISE: MemoryUse = MemoryUse {
    total: 1536,
    slab: 192,
    vmalloc: 128,
};

fn given_back(_: &Options) -> Result<()> {
    // What is allocated once and kept is so from now on.
    use_module()?;
    let content = pattern::pages(6, MANY_TWINS);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    let unloaded = MemoryUse::now()?;
    load()?;
    let scanner = Scanner::prepare()?;
    let loaded = MemoryUse::now()?;
    ksm::set_run(Run::Merge)?;
    let twins = MANY_TWINS as u64;
    scanner.expect(Counters::stable(twins, twins, 0))?;
    ksm::set_run(Run::Stop)?;
    let merged = MemoryUse::now()?;
    ksm::set_run(Run::Unmerge)?;
    let unmerged = MemoryUse::now()?;
    left.verify(&content)?;
    right.verify(&content)?;
    drop(scanner);
    unload()?;
    let again = MemoryUse::now()?;
    for (when, then) in [
        ("unloaded", unloaded),
        ("loaded", loaded),
        ("merged", merged),
        ("unmerged", unmerged),
        ("unloaded", again),
    ] {
        step(format!("{when}: {then:?}"));
    }
    // Not vmalloc: the kernel frees the module's initial part some time after the load.
    let taken = merged.slab - loaded.slab;
    // The records are larger in a debug kernel.
    let saved = loaded.total - merged.total + taken;
    let pages_kib = (MANY_TWINS * PAGE_SIZE / 1024) as i64;
    ensure!(
        saved > pages_kib * 9 / 10,
        "merging has freed {saved} KiB only"
    );
    // Slabs that were there, with room in them, have taken in some of the records.
    ensure!(
        taken + NOISE.slab >= RECORDS_KIB,
        "the records take {taken} KiB only"
    );
    loaded
        .ensure_no_growth(&unmerged, &NOISE)
        .context("run=2")?;
    unloaded.ensure_no_growth(&again, &NOISE).context("rmmod")
}
