// SPDX-License-Identifier: GPL-2.0

//! Processes that hold memory, and sleep but for what they are told to do with it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ksm_tests::{
    peer::{Link, Peer},
    region::Region,
    PAGE_SIZE,
};
use nix::{
    sys::{mman::ProtFlags, wait::waitpid},
    unistd::{fork, ForkResult, Pid},
};
use serde::{Deserialize, Serialize};

use crate::{fill, workload::Memory};

/// What a holder can be told.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub enum Order {
    /// Offer the memory to KSM.
    Advise,
    /// Take it back.
    Unadvise,
    /// Change every second page.
    RewriteHalf,
    /// Write what is there already to each page.
    WriteSame,
    /// Read from each page.
    Read,
    /// Forbid writes to the memory, and allow them again.
    Protect,
    /// Move the memory to other addresses.
    Move,
    /// Give the pages back, but not the addresses.
    Discard,
    /// Unmap the memory, and map as much instead, which is empty.
    Renew,
    /// Unmap the last region.
    DropLast,
    /// Write other random pages.
    Refill,
    /// Make a copy of the process, which ends at once.
    Fork,
}

/// A process with its memory; killed when dropped.
pub struct Holder(Peer);

impl Holder {
    /// `fill` says what the `pages` pages hold. They are not offered to KSM yet.
    pub fn new(pages: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        Self::in_memory(Memory::SmallPages, pages, fill)
    }

    /// As [`Holder::new`], in memory of one kind.
    pub fn in_memory(memory: Memory, pages: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        Self::with_regions(|| Ok(vec![memory.region(pages, fill)?]))
    }

    /// As [`Holder::new`], with more freedom in what it holds.
    pub fn with_regions(make: impl FnOnce() -> Result<Vec<Region>>) -> Result<Self> {
        let mut peer = Peer::fork(|link| {
            link.wait_for_ever()?;
            let mut regions = make()?;
            link.step()?;
            obey(link, &mut regions)
        })?;
        peer.await_step()?;
        Ok(Self(peer))
    }

    /// Waits until it has done what it was told; returns how long it took.
    pub fn obey(&mut self, order: Order) -> Result<Duration> {
        self.0.send(order)?;
        self.0.receive()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// Ends it; returns how long that took.
    pub fn kill(self) -> Result<Duration> {
        let begin = Instant::now();
        self.0.kill()?;
        Ok(begin.elapsed())
    }
}

/// Does what it is told, until it is killed.
fn obey(link: &mut Link, regions: &mut Vec<Region>) -> Result<()> {
    loop {
        let time = match link.receive()? {
            Order::Fork => fork_once()?,
            Order::DropLast => timed(|| {
                drop(regions.pop());
                Ok(())
            })?,
            order => timed(|| carry_out(order, regions))?,
        };
        link.send(time)?;
    }
}

/// How long `action` takes.
fn timed(action: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    action()?;
    Ok(begin.elapsed())
}

fn carry_out(order: Order, regions: &mut [Region]) -> Result<()> {
    for region in regions {
        match order {
            Order::Advise => region.advise_mergeable()?,
            Order::Unadvise => region.advise_unmergeable()?,
            Order::RewriteHalf => change(region, 2, |byte| byte.wrapping_add(1)),
            Order::WriteSame => change(region, 1, |byte| byte),
            Order::Read => read(region),
            Order::Protect => region.protected(ProtFlags::PROT_READ, || Ok(()))?,
            Order::Move => region.relocate()?,
            Order::Discard => region.discard()?,
            Order::Renew => *region = Region::new(region.pages())?,
            Order::Refill => fill::unique(region.bytes_mut()),
            Order::Fork | Order::DropLast => unreachable!("it is not about each region"),
        }
    }
    Ok(())
}

/// Writes to the first byte of every `step`th page.
fn change(region: &mut Region, step: usize, new: impl Fn(u8) -> u8) {
    for page in region.bytes_mut().chunks_exact_mut(step * PAGE_SIZE) {
        // The compiler must not find out that nothing may change.
        let byte = std::hint::black_box(page[0]);
        page[0] = std::hint::black_box(new(byte));
    }
}

fn read(region: &Region) {
    for page in region.bytes().chunks_exact(PAGE_SIZE) {
        std::hint::black_box(page[0]);
    }
}

/// How long a fork takes; what becomes of the new process is not measured.
fn fork_once() -> Result<Duration> {
    let begin = Instant::now();
    // SAFETY: This process has one thread.
    match unsafe { fork() }.context("fork")? {
        // SAFETY: Ends the process at once; nothing is left to be done in it.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => {
            let time = begin.elapsed();
            waitpid(child, None).context("waitpid")?;
            Ok(time)
        }
    }
}
