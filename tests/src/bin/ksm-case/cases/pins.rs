// SPDX-License-Identifier: GPL-2.0

//! Pages that something else than a page table refers to.

use std::{fs::File, io::Read, os::unix::fs::FileExt};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    cgroup::Cgroup,
    ksm::{self, Counters, Run, Scanner},
    numa, pagemap, pattern,
    peer::{Link, Peer},
    procfs,
    region::Region,
    swap::{self, Swap},
    wait, MIB,
};
use nix::unistd::Pid;

use crate::{
    case::{Case, Options, Skip},
    helpers::{expect_sharing, splice, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "pins-pipe",
        "pages that lie in a pipe do not merge until it is drained",
        pages_in_pipe,
    ),
    Case::new(
        "pins-pipe-merged",
        "merged pages in a pipe keep their contents when their mapping changes or goes",
        merged_pages_in_pipe,
    ),
    Case::new(
        "pins-foreign-reader",
        "another process reads memory through /proc/PID/mem while it merges and parts",
        foreign_reader,
    ),
    Case::new(
        "pins-between-steps",
        "while the scanner pauses it holds no page: each can be migrated, or swapped out",
        between_steps,
    )
    .on("um,x86:numa=2:cpus=2")
    .memory("512M"),
];

/// Half of what a pipe takes.
const PAGES: usize = 8;

/// Empties the pipe.
fn drain(mut pipe: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn pages_in_pipe(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let pinned = Region::with_content(&content)?;
    let pipe = splice(&pinned)?;
    pinned.advise_mergeable()?;
    let free = Region::mergeable(&content)?;

    step("while the pipe refers to the pages, scans leave them alone");
    scanner.scans(6)?;
    for frame in pagemap::frames(&pinned)? {
        ensure!(!pagemap::is_ksm(frame)?, "a page in a pipe is merged");
    }
    let now = ksm::counters()?;
    ensure!(now.sharing == 0, "something is merged: {now}");
    pinned.verify(&content)?;

    step("drained, they merge");
    ensure!(drain(pipe)? == content, "DATA LOST in the pipe");
    scanner.expect(Counters::stable(8, 8, 0))?;
    pinned.verify(&content)?;
    free.verify(&content)
}

fn merged_pages_in_pipe(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, PAGES);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(8, 8, 0))?;

    let pipe = splice(&left)?;
    step("write, unmerge and unmap while the pages lie in a pipe");
    let changed = pattern::pages(3, PAGES);
    left.bytes_mut().copy_from_slice(&changed);
    expect_sharing(&scanner, 0)?;
    ksm::set_run(Run::Unmerge)?;
    left.verify(&changed)?;
    right.verify(&content)?;
    drop(right);
    ensure!(drain(pipe)? == content, "DATA LOST in the pipe");
    Ok(())
}

fn foreign_reader(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(4, 8 * PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    let owner = Pid::this();
    let mut reader = Peer::fork(|link| {
        link.step()?;
        let rounds = read_for_ever(link, owner, [&left, &right], &content)?;
        link.await_step()?;
        link.send(rounds)
    })?;
    reader.await_step()?;

    step("five rounds of merging and parting under the reader's eyes");
    for _ in 0..5 {
        // A page that is being read cannot be merged then, so there is no number to expect.
        wait::until("merged pages", || {
            Ok((ksm::counters()?.sharing > 0).then_some(()))
        })?;
        scanner.scans(2)?;
        ksm::set_run(Run::Unmerge)?;
        ksm::set_run(Run::Merge)?;
    }
    reader.step()?;
    let rounds: u64 = reader.receive()?;
    ensure!(rounds > 0, "the reader got no turn");
    reader.join()?;
    left.verify(&content)?;
    right.verify(&content)
}

/// Compares the owner's memory with `content` until told to stop; gives the number of times.
fn read_for_ever(
    link: &mut Link,
    owner: Pid,
    regions: [&Region; 2],
    content: &[u8],
) -> Result<u64> {
    let memory = File::open(format!("/proc/{owner}/mem")).context("cannot open mem")?;
    let mut buffer = vec![0; content.len()];
    let mut rounds = 0;
    while !link.has_message()? {
        for region in regions {
            memory
                .read_exact_at(&mut buffer, region.address() as u64)
                .context("cannot read mem")?;
            ensure!(buffer == content, "DATA LOST as seen by a reader");
        }
        rounds += 1;
    }
    Ok(rounds)
}

/// Pages of each region in [`between_steps`].
const MANY_PAGES: usize = 96;

/// Steps that end in the middle of a region, at an end of one, or beyond all.
const STEPS: [usize; 8] = [1, 7, 64, 65, 96, 1, 100, 1000];

/// Twins, and pages that have no equal.
struct Residents {
    left: Region,
    right: Region,
    alone: Region,
    content: Vec<u8>,
    alone_content: Vec<u8>,
}

impl Residents {
    fn new() -> Result<Self> {
        let (content, alone_content) =
            (pattern::pages(5, MANY_PAGES), pattern::pages(6, MANY_PAGES));
        Ok(Self {
            left: Region::mergeable(&content)?,
            right: Region::mergeable(&content)?,
            alone: Region::mergeable(&alone_content)?,
            content,
            alone_content,
        })
    }

    fn all(&self) -> [(&Region, &[u8]); 3] {
        [
            (&self.left, &self.content),
            (&self.right, &self.content),
            (&self.alone, &self.alone_content),
        ]
    }

    fn verify(&self) -> Result<()> {
        let mut all = self.all().into_iter();
        all.try_for_each(|(region, content)| region.verify(content))
    }
}

/// How to find out that nobody holds a page: with a reference too many, it stays where it is.
trait Evictor {
    fn evict(&mut self, residents: &Residents) -> Result<()>;
}

/// Moves all pages from one NUMA node to the other.
struct Mover {
    node: u32,
}

impl Evictor for Mover {
    fn evict(&mut self, residents: &Residents) -> Result<()> {
        self.node = 1 - self.node;
        for (region, _) in residents.all() {
            numa::move_to(region, self.node)?;
            numa::ensure_on(region, self.node)?;
        }
        Ok(())
    }
}

/// Swaps all pages out.
struct Swapper {
    group: Cgroup,
    _swap: Swap,
}

impl Swapper {
    fn new() -> Result<Self> {
        let swap = Swap::on(64 * MIB)?;
        let group = Cgroup::new("evicted")?;
        group.add(Pid::this())?;
        Ok(Self { group, _swap: swap })
    }
}

impl Evictor for Swapper {
    fn evict(&mut self, residents: &Residents) -> Result<()> {
        let all = residents
            .all()
            .iter()
            .map(|(region, _)| region.pages())
            .sum();
        wait::until("everything to be swapped out", || {
            self.group.reclaim_anonymous(16 * MIB);
            // A page that somebody holds is unmapped, but not freed.
            let held = procfs::meminfo_kib("SwapCached")?;
            Ok((procfs::swapped_pages("self")? >= all && held == 0).then_some(()))
        })
    }
}

fn evictor() -> Result<Box<dyn Evictor>> {
    if numa::has_node(1) {
        return Ok(Box::new(Mover { node: 0 }));
    }
    if !swap::is_available() {
        return Err(Skip("there is neither a second NUMA node nor swap here".into()).into());
    }
    Ok(Box::new(Swapper::new()?))
}

fn between_steps(_: &Options) -> Result<()> {
    let mut evictor = evictor()?;
    let scanner = Scanner::prepare()?;
    if ksm::is_in_sync()? {
        let reason = "a page that is swapped out after each step is new in the next one";
        return Err(Skip(reason.into()).into());
    }
    let residents = Residents::new()?;
    ksm::write("sleep_millisecs", ksm::FOR_EVER)?;
    ksm::write("pages_to_scan", 1)?;
    ksm::set_run(Run::Merge)?;
    let mut most_sharing = 0;
    for round in 0..6 {
        for pages in STEPS {
            ksm::write("pages_to_scan", pages)?;
            scanner.take_step()?;
            most_sharing = most_sharing.max(ksm::counters()?.sharing);
            evictor
                .evict(&residents)
                .with_context(|| format!("round {round}, after {pages} pages"))?;
            residents.verify()?;
        }
    }
    step(format!(
        "{} steps, at most {most_sharing} pages were sharing",
        6 * STEPS.len()
    ));
    ensure!(most_sharing > 0, "nothing was merged");
    Ok(())
}
