// SPDX-License-Identifier: GPL-2.0

//! A write to a merged page is seen by the writer alone.

use std::{fs::OpenOptions, os::unix::fs::FileExt};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::{Counters, Scanner},
    pattern,
    peer::{Link, Peer},
    procfs,
    region::Region,
    PAGE_SIZE,
};

use crate::{
    case::{Case, Options},
    helpers::{ensure_own_frames, expect_sharing, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "cow-isolation",
        "four processes write to every merged page in turn; each sees its own writes alone",
        isolation,
    ),
    Case::new(
        "cow-remerge",
        "pages written to part, and merge again once they are equal again",
        remerge,
    ),
    Case::new(
        "cow-every-byte",
        "a write of one byte changes that byte of that page and nothing else",
        every_byte,
    ),
    Case::new(
        "cow-while-scanning",
        "writers that never stop lose nothing to a scanner that never stops",
        while_scanning,
    ),
    Case::new(
        "cow-proc-mem",
        "a write through /proc/self/mem breaks sharing like any other",
        proc_mem,
    ),
];

const PAGES: usize = 32;
const WRITERS: usize = 4;

/// What a writer is told.
#[derive(serde::Serialize, serde::Deserialize)]
enum Order {
    /// Write to every page.
    Write,
    /// Compare every byte with what it should be.
    Verify,
    /// Go.
    End,
}

/// Holds `content` and a copy that no scanner touches, and follows orders.
fn writer(link: &mut Link, id: usize, content: &[u8]) -> Result<()> {
    let mut region = Region::mergeable(content)?;
    let mut expected = content.to_vec();
    link.step()?;
    loop {
        match link.receive()? {
            Order::Write => write_to_all(id, &mut region, &mut expected),
            Order::Verify => region.verify(&expected)?,
            Order::End => return Ok(()),
        }
        link.step()?;
    }
}

/// Changes a byte in each page, at a place that depends on the writer and the page.
fn write_to_all(id: usize, region: &mut Region, expected: &mut [u8]) {
    for index in 0..region.pages() {
        let place = (index * 131 + id * 1021) % PAGE_SIZE;
        region.page_mut(index)[place] ^= 0x80 | id as u8;
        expected[index * PAGE_SIZE + place] ^= 0x80 | id as u8;
    }
}

fn order(peer: &mut Peer, order: Order) -> Result<()> {
    peer.send(order)?;
    peer.await_step()
}

fn isolation(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let mut peers = (0..WRITERS)
        .map(|id| Peer::fork(|link| writer(link, id, &content)))
        .collect::<Result<Vec<_>>>()?;
    peers.iter_mut().try_for_each(Peer::await_step)?;
    scanner.expect(Counters::stable(32, 3 * 32, 0))?;

    for turn in 0..WRITERS {
        step(format!("process {turn} writes to all of its pages"));
        order(&mut peers[turn], Order::Write)?;
        peers
            .iter_mut()
            .try_for_each(|peer| order(peer, Order::Verify))?;
    }

    step("in the end no two pages are equal, and none is shared");
    scanner.expect(Counters::stable(0, 0, 4 * 32))?;
    peers
        .iter_mut()
        .try_for_each(|peer| order(peer, Order::Verify))?;

    for mut peer in peers {
        peer.send(Order::End)?;
        peer.join()?;
    }
    Ok(())
}

fn remerge(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, PAGES);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(32, 32, 0))?;

    step("the writer's half of the pages parts from the others");
    let mut changed = content.clone();
    for index in 0..PAGES / 2 {
        left.page_mut(index)[100] ^= 0xff;
        changed[index * PAGE_SIZE + 100] ^= 0xff;
    }
    left.verify(&changed)?;
    right.verify(&content)?;
    scanner.settle()?;
    left.verify(&changed)?;
    right.verify(&content)?;

    step("equal again, they merge again");
    left.bytes_mut().copy_from_slice(&content);
    scanner.expect(Counters::stable(32, 32, 0))?;
    left.verify(&content)?;
    right.verify(&content)
}

fn every_byte(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    // One page for each byte of a page would be too much; the steps reach all of a cache line.
    let places: Vec<usize> = (0..PAGE_SIZE).step_by(65).collect();
    let content = pattern::page(3, 0).repeat(places.len());
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(1, 2 * places.len() as u64 - 1, 0))?;

    let mut changed = content.clone();
    for (index, &place) in places.iter().enumerate() {
        left.page_mut(index)[place] ^= 1;
        changed[index * PAGE_SIZE + place] ^= 1;
    }
    left.verify(&changed)?;
    right.verify(&content)?;
    scanner.expect(Counters::stable(
        1,
        places.len() as u64 - 1,
        places.len() as u64,
    ))?;
    left.verify(&changed)?;
    right.verify(&content)
}

fn while_scanning(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut peers = (0..WRITERS)
        .map(|id| Peer::fork(move |link| write_for_ever(link, id)))
        .collect::<Result<Vec<_>>>()?;
    peers.iter_mut().try_for_each(Peer::await_step)?;

    step("200 scans beside four writers that leave pages equal for a while");
    let before = procfs::vmstat("cow_ksm")?;
    scanner.scans(200)?;
    for mut peer in peers {
        peer.step()?;
        let rounds: usize = peer.receive()?;
        ensure!(rounds > 0, "a writer got no turn");
        peer.join()?;
    }
    let copies = procfs::vmstat("cow_ksm")? - before;
    step(format!("{copies} copies of KSM pages were made"));
    ensure!(copies > 0, "nobody has written to a merged page");
    Ok(())
}

/// Writes equal and different contents by turns, and verifies all before each write.
fn write_for_ever(link: &mut Link, id: usize) -> Result<()> {
    let common = pattern::pages(4, PAGES);
    let own = pattern::pages(5 + id as u64, PAGES);
    let mut region = Region::mergeable(&common)?;
    let mut expected = common.clone();
    link.step()?;
    let mut rounds = 0usize;
    while !link.has_message()? {
        region.verify(&expected)?;
        let source = if rounds % 2 == 0 { &own } else { &common };
        // A different page each time, so that most pages rest long enough to be merged.
        let at = (rounds * 7 % PAGES) * PAGE_SIZE;
        region.bytes_mut()[at..][..PAGE_SIZE].copy_from_slice(&source[at..][..PAGE_SIZE]);
        expected[at..][..PAGE_SIZE].copy_from_slice(&source[at..][..PAGE_SIZE]);
        rounds += 1;
    }
    link.await_step()?;
    region.verify(&expected)?;
    link.send(rounds)
}

fn proc_mem(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(9, PAGES);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(32, 32, 0))?;

    let mut changed = content.clone();
    let memory = OpenOptions::new().write(true).open("/proc/self/mem")?;
    for index in 0..PAGES {
        changed[index * PAGE_SIZE + 7] ^= 0x55;
        let byte = [changed[index * PAGE_SIZE + 7]];
        memory
            .write_all_at(&byte, left.page_address(index) as u64 + 7)
            .context("write to /proc/self/mem")?;
    }
    left.verify(&changed)?;
    right.verify(&content)?;
    step("all written pages have left the shared frames");
    ensure_own_frames(&left)?;
    expect_sharing(&scanner, 0)?;
    left.verify(&changed)?;
    right.verify(&content)
}
