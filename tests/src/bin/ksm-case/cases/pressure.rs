// SPDX-License-Identifier: GPL-2.0

//! Memory that runs out while pages are merged.

use anyhow::{bail, ensure, Context, Result};
use ksm_tests::{
    cgroup::Cgroup,
    control_file,
    ksm::{self, Counters, Run, Scanner},
    merge_any, pattern,
    peer::Peer,
    procfs,
    quiet_console::QuietConsole,
    region::Region,
    MIB,
};
use nix::{
    errno::Errno,
    sys::{
        mman::{mlockall, MlockAllFlags},
        signal::Signal,
        wait::{waitpid, WaitStatus},
    },
};

use crate::{
    case::{Case, Options},
    helpers::{ensure_own_frames, holders, step, verify_all},
};

pub const CASES: &[Case] = &[
    Case::new(
        "oom-kill",
        "processes that are killed for want of memory while they merge leave nothing behind",
        oom_kill,
    ),
    Case::new(
        "unmerge-enomem",
        "MADV_UNMERGEABLE without room for the copies fails, loses nothing, and works later",
        unmerge_without_room,
    ),
    Case::new(
        "prctl-off-enomem",
        "PR_SET_MEMORY_MERGE off without room for the copies fails, and works later",
        prctl_without_room,
    ),
    Case::new(
        "run-2-pressure",
        "run=2 without room for the copies ends somehow, loses nothing, and works later",
        run_2_without_room,
    ),
];

const FILE_SCORE: &str = "/proc/self/oom_score_adj";

/// A process that allocates and merges for ever. The killer is to choose it.
fn glutton(group: &Cgroup, seed: u64) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        control_file::write(FILE_SCORE, 1000)?;
        link.step()?;
        link.await_step()?;
        let mut regions = Vec::new();
        for index in 0.. {
            // Half of the pages have an equal.
            let mut content = pattern::pages(7, 64);
            content.extend(pattern::pages(seed * 1000 + index, 64));
            regions.push(Region::mergeable(&content)?);
        }
        Ok(())
    })?;
    peer.await_step()?;
    group.add(peer.pid())?;
    peer.step()?;
    Ok(peer)
}

fn oom_kill(_: &Options) -> Result<()> {
    let mut quiet = QuietConsole::new()?;
    let scanner = Scanner::start()?;
    let group = Cgroup::new("greedy")?;
    group.limit(24 * MIB)?;
    group.limit_swap(0)?;
    let content = pattern::pages(7, 64);
    let mut peers = holders(2, &content, 5)?;
    for round in 0..3 {
        let gluttons = [glutton(&group, round * 2)?, glutton(&group, round * 2 + 1)?];
        for glutton in gluttons {
            match waitpid(glutton.pid(), None).context("waitpid")? {
                WaitStatus::Signaled(_, Signal::SIGKILL, _) => std::mem::forget(glutton),
                status => bail!("the glutton was not killed: {status:?}"),
            }
        }
        step(format!(
            "round {round}: {} kills",
            group.events("oom_kill")?
        ));
        verify_all(&mut peers)?;
    }
    step("only the survivors are left");
    scanner.expect_after_exit(Counters::stable(64, 64, 0))?;
    verify_all(&mut peers)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    for peer in peers {
        peer.kill()?;
    }
    quiet.check()
}

/// Pages of the process that cannot be unmerged: one content over and over.
const PAGES: usize = 4096;

/// Pages that the process gives back when it has to do other things than to unmerge.
const BALLAST_PAGES: usize = 512;

/// A process with merged pages, in a group that has room for a few copies of them only.
struct Narrow {
    peer: Peer,
    group: Cgroup,
    scanner: Scanner,
    quiet: QuietConsole,
}

impl Narrow {
    /// The process calls `body` when there is no room. What it returns, the process reports; then
    /// it calls `later`, when there is room again.
    fn new(body: fn(&Region) -> Result<()>, later: fn(&Region) -> Result<()>) -> Result<Self> {
        let quiet = QuietConsole::new()?;
        // The process shares this code. If it had to read it from the file, and into its group, it
        // would do that for ever as soon as there is no room.
        mlockall(MlockAllFlags::MCL_CURRENT).context("mlockall")?;
        let scanner = Scanner::start()?;
        let group = Cgroup::new("narrow")?;
        group.limit_swap(0)?;
        let content = pattern::page(8, 0).repeat(PAGES);
        let mut peer = Peer::fork(|link| {
            link.await_step()?;
            // What cannot get memory is to fail, and not to end this process.
            control_file::write(FILE_SCORE, -1000)?;
            let region = Region::mergeable(&content)?;
            let mut ballast = Region::with_content(&pattern::pages(9, BALLAST_PAGES))?;
            link.step()?;
            link.await_step()?;
            let result = body(&region);
            // Without this it would wait for memory for ever.
            ballast.discard()?;
            result?;
            region.verify(&content)?;
            link.step()?;
            link.await_step()?;
            later(&region)?;
            region.verify(&content)?;
            link.step()?;
            link.await_step()?;
            region.verify(&content)
        })?;
        group.add(peer.pid())?;
        peer.round()?;
        let now = scanner.settle()?;
        ensure_all_merged(&now)?;
        ksm::set_run(Run::Stop)?;
        group.limit(group.usage()? + 2 * MIB)?;
        step(format!("{now}; room for 512 copies of {PAGES}"));
        Ok(Self {
            peer,
            group,
            scanner,
            quiet,
        })
    }

    fn make_room(&self) -> Result<()> {
        step("now there is room for all");
        self.group.limit("max")
    }

    fn end(mut self) -> Result<()> {
        self.peer.step()?;
        self.peer.join()?;
        ksm::set_run(Run::Unmerge)?;
        let now = ksm::counters()?;
        ensure!(now == Counters::ZERO, "left over: {now}");
        drop(self.scanner);
        self.quiet.check()
    }
}

fn ensure_all_merged(now: &Counters) -> Result<()> {
    ensure!(
        now.shared + now.sharing == PAGES as u64,
        "not all are merged: {now}"
    );
    Ok(())
}

fn ensure_no_room(result: Result<(), Errno>) -> Result<()> {
    ensure!(
        matches!(result, Err(Errno::ENOMEM | Errno::EAGAIN)),
        "unexpected: {result:?}"
    );
    Ok(())
}

fn unmerge_without_room(_: &Options) -> Result<()> {
    let mut narrow = Narrow::new(
        |region| ensure_no_room(region.try_advise_unmergeable()),
        |region| {
            ensure!(
                procfs::is_mergeable(region)?,
                "the advice is gone though pages are merged still"
            );
            region.advise_unmergeable().context("with enough room")?;
            ensure_own_frames(region)
        },
    )?;
    narrow.peer.round()?;
    narrow.make_room()?;
    narrow.peer.round()?;
    narrow.end()
}

fn prctl_without_room(_: &Options) -> Result<()> {
    let mut narrow = Narrow::new(
        |_| {
            merge_any::set(true)?;
            ensure_no_room(merge_any::set(false))
        },
        |region| {
            merge_any::set(false).context("with enough room")?;
            ensure_own_frames(region)
        },
    )?;
    narrow.peer.round()?;
    narrow.make_room()?;
    narrow.peer.round()?;
    narrow.end()
}

fn run_2_without_room(_: &Options) -> Result<()> {
    let mut narrow = Narrow::new(|_| Ok(()), |_| Ok(()))?;
    let result = ksm::set_run(Run::Unmerge);
    let run: u32 = ksm::read("run")?;
    let now = ksm::counters()?;
    let outcome = if result.is_ok() { "works" } else { "fails" };
    step(format!("run=2 {outcome}; run is {run}, {now}"));
    match result {
        // As mm/ksm.c has it when a fault finds no memory.
        Err(_) => ensure!(run == 0, "run is {run} after an error"),
        Ok(()) => ensure!(now == Counters::ZERO, "done, but left over: {now}"),
    }
    narrow.peer.round()?;
    narrow.make_room()?;
    ksm::set_run(Run::Stop)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    narrow.peer.round()?;
    ksm::set_run(Run::Merge)?;
    ensure_all_merged(&narrow.scanner.settle()?)?;
    narrow.end()
}
