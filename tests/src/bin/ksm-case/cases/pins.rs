// SPDX-License-Identifier: GPL-2.0

//! Pages that something else than a page table refers to.

use std::{
    fs::File,
    io::{IoSlice, Read},
    os::unix::fs::FileExt,
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    pagemap, pattern,
    peer::{Link, Peer},
    region::Region,
    wait,
};
use nix::{
    fcntl::{vmsplice, SpliceFFlags},
    unistd::{pipe, Pid},
};

use crate::{
    case::{Case, Options},
    helpers::{expect_sharing, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "pins-pipe",
        "pages that lie in a pipe do not merge until it is drained",
        pages_in_pipe,
    ),
    Case::new(
        "pins-pipe-merged",
        "merged pages in a pipe keep their contents whatever happens to their mapping",
        merged_pages_in_pipe,
    ),
    Case::new(
        "pins-foreign-reader",
        "another process reads memory through /proc/PID/mem while it merges and parts",
        foreign_reader,
    ),
];

/// Half of what a pipe takes.
const PAGES: usize = 8;

/// Puts the pages themselves, not copies of them, into a pipe.
fn splice(region: &Region) -> Result<File> {
    let (reader, writer) = pipe().context("pipe")?;
    let length = vmsplice(
        &writer,
        &[IoSlice::new(region.bytes())],
        SpliceFFlags::SPLICE_F_NONBLOCK,
    )
    .context("vmsplice")?;
    ensure!(length == region.len(), "the pipe took {length} bytes only");
    Ok(File::from(reader))
}

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
