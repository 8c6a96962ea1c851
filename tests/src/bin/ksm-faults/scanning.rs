// SPDX-License-Identifier: GPL-2.0

//! What the scanner's thread does: gathering, merging, and undoing what was begun.

use std::{fs::File, io::IoSlice};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    faults::{self, Fuse},
    ksm::{self, Counters, Run},
    pattern,
    peer::{Link, Peer},
    procfs::Ksmd,
    region::Region,
    wait,
};
use nix::{
    fcntl::{vmsplice, SpliceFFlags},
    unistd::pipe,
};

use crate::{
    attempt::{Attempt, Ending},
    entry::Entry,
};

/// Scans in which everything is done that there is to do, one of which may have begun before.
const SCANS: u64 = 4;

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::new("ksmd: pages of three processes", |nth| {
            let content = pattern::pages(5, 6);
            scan(nth, (0..3).map(|_| hold(&content)).collect::<Result<_>>()?)
        }),
        Entry::new("ksmd: one page forty times, and chains", |nth| {
            ksm::write("max_page_sharing", 6)?;
            let content = pattern::page(6, 0).repeat(20);
            let attempt = scan(nth, vec![hold(&content)?, hold(&content)?]);
            ksm::write("max_page_sharing", 256)?;
            attempt
        }),
        Entry::new("ksmd: zero pages", |nth| {
            ksm::write("use_zero_pages", 1)?;
            let attempt = scan(nth, vec![hold(&[0; 4 * ksm_tests::PAGE_SIZE])?]);
            ksm::write("use_zero_pages", 0)?;
            attempt
        }),
        Entry::new("ksmd: pages that are in use", |nth| {
            let content = pattern::pages(7, 4);
            scan(nth, vec![hold(&content)?, hold_in_pipe(&content)?])
        }),
        Entry::new("ksmd: pages that a fork has inherited", after_fork),
        Entry::new("ksmd: no memory for any record", without_records),
    ]
}

/// A process that holds `content`, and verifies it each time that it is asked to.
fn hold(content: &[u8]) -> Result<Peer> {
    start(|link| {
        let region = Region::mergeable(content)?;
        verify_when_asked(link, &region, content)
    })
}

fn start(body: impl FnOnce(&mut Link) -> Result<()>) -> Result<Peer> {
    let mut peer = Peer::fork(body)?;
    peer.await_step()?;
    Ok(peer)
}

fn verify_when_asked(link: &mut Link, region: &Region, content: &[u8]) -> Result<()> {
    loop {
        link.step()?;
        if !link.receive::<bool>()? {
            return Ok(());
        }
        region.verify(content)?;
    }
}

/// As [`hold`], but a pipe refers to the pages too, so that they cannot be merged.
fn hold_in_pipe(content: &[u8]) -> Result<Peer> {
    start(|link| {
        let region = Region::with_content(content)?;
        let (reader, writer) = pipe().context("pipe")?;
        let whole = [IoSlice::new(region.bytes())];
        let length = vmsplice(&writer, &whole, SpliceFFlags::SPLICE_F_NONBLOCK);
        ensure!(length == Ok(region.len()), "the pipe took {length:?}");
        let _pipe = File::from(reader);
        region.advise_mergeable()?;
        verify_when_asked(link, &region, content)
    })
}

fn verify_all(peers: &mut [Peer]) -> Result<()> {
    for peer in peers {
        peer.send(true)?;
        peer.await_step()?;
    }
    Ok(())
}

/// Lets all allocations of the scanner fail, which happens once: its pages must be counted as untracked,
/// not as scanned.
fn without_records(nth: u32) -> Result<Attempt> {
    let went_off = nth == 1;
    if went_off {
        let mut peers = vec![hold(&pattern::pages(8, 6))?];
        let before = (ksm::read::<u64>("pages_scanned")?, pages_untracked()?);
        faults::fail_at_random(Ksmd::find()?.pid(), 100)?;
        ksm::set_run(Run::Merge)?;
        pass_scans()?;
        ksm::set_run(Run::Stop)?;
        faults::end_failing()?;
        let scanned = ksm::read::<u64>("pages_scanned")? - before.0;
        let untracked = pages_untracked()? - before.1;
        ensure!(
            scanned == 0 && untracked > 0,
            "{scanned} pages were scanned without memory for a record, {untracked} were not"
        );
        expect_all_done(&mut peers)?;
        dismiss(peers)?;
    }
    Ok(Attempt {
        ending: Ending::Done,
        went_off,
    })
}

/// Pages that the scan has passed over for lack of a record.
fn pages_untracked() -> Result<u64> {
    ksm::read_own("pages_untracked")
}

fn dismiss(peers: Vec<Peer>) -> Result<()> {
    for mut peer in peers {
        peer.send(false)?;
        peer.join()?;
    }
    Ok(())
}

/// Lets the scanner work on the memory of `peers`, with one allocation that fails.
fn scan(nth: u32, mut peers: Vec<Peer>) -> Result<Attempt> {
    let fuse = Fuse::of(Ksmd::find()?.pid())?;
    fuse.light(nth)?;
    ksm::set_run(Run::Merge)?;
    pass_scans()?;
    ksm::set_run(Run::Stop)?;
    let went_off = fuse.put_out()?;
    verify_all(&mut peers)?;
    expect_all_done(&mut peers)?;
    dismiss(peers)?;
    Ok(Attempt {
        ending: Ending::Done,
        went_off,
    })
}

fn pass_scans() -> Result<()> {
    let target = ksm::full_scans()? + SCANS;
    wait::until("full scans", || {
        Ok((ksm::full_scans()? >= target).then_some(()))
    })
}

/// What was not done for lack of memory is done in the next scans; and all can be undone.
fn expect_all_done(peers: &mut [Peer]) -> Result<()> {
    ksm::set_run(Run::Merge)?;
    pass_scans()?;
    ksm::set_run(Run::Stop)?;
    let found = ksm::counters()?;
    verify_all(peers)?;
    ksm::set_run(Run::Unmerge)?;
    let left = ksm::counters()?;
    ensure!(left == Counters::ZERO, "left over: {left}");
    verify_all(peers)?;
    // The same memory, without a fault from the beginning.
    ksm::set_run(Run::Merge)?;
    pass_scans()?;
    ksm::set_run(Run::Stop)?;
    let expected = ksm::counters()?;
    // A page whose twin is in use may stay a KSM page of its own if it cannot be copied.
    ensure!(
        found.sharing == expected.sharing && tracked(&found) == tracked(&expected),
        "{found}, but without a fault {expected}"
    );
    ksm::set_run(Run::Unmerge)
}

/// Pages that the scanner knows.
fn tracked(counters: &Counters) -> u64 {
    counters.shared + counters.sharing + counters.unshared + counters.volatile
}

fn after_fork(nth: u32) -> Result<Attempt> {
    let content = pattern::pages(8, 4);
    let parent = start(|link| {
        let region = Region::mergeable(&content)?;
        link.step()?;
        link.await_step()?;
        let mut child = start(|link| verify_when_asked(link, &region, &content))?;
        loop {
            link.step()?;
            let go_on: bool = link.receive()?;
            child.send(go_on)?;
            if !go_on {
                return child.join();
            }
            child.await_step()?;
            region.verify(&content)?;
        }
    });
    let (mut parent, other) = (parent?, hold(&content)?);
    ksm::set_run(Run::Merge)?;
    wait::until("merged pages", || {
        Ok((ksm::counters()?.sharing >= 4).then_some(()))
    })?;
    ksm::set_run(Run::Stop)?;
    parent.round()?;
    scan(nth, vec![parent, other])
}
