// SPDX-License-Identifier: GPL-2.0

//! A process with a guest that is at work all the time.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use ksm_tests::{
    kvm::{Guest, Writes},
    pattern,
    peer::{Link, Peer},
    region::Region,
    PAGE_SIZE,
};
use nix::{
    time::{clock_gettime, ClockId},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

/// For how many times as long as it has worked a guest then rests, as most guests do.
const REST: u32 = 5;

/// How often a guest writes in a round.
const WRITES: u64 = 200;

/// What a process with a guest is told.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Write to what all guests have had in common.
    WriteImage,
    /// Verify from both sides and tell about it.
    Report,
    End,
}

/// What there is to be told.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// How often the guest has verified all of its pages.
    pub rounds: u64,
    /// Bytes that are not what they must be.
    pub wrong_bytes: u64,
    /// How long the guest was on a CPU for the rounds that nobody asked for.
    pub cpu_time: Duration,
    /// The number of these.
    pub own_rounds: u32,
}

/// The process, as others see it.
pub struct Tenant {
    peer: Peer,
    digests: Vec<u64>,
}

impl Tenant {
    /// Starts a guest that holds `image`, and so many pages that nobody else has.
    pub fn start(image: &[u8], own_pages: usize, seed: u64) -> Result<Self> {
        let mut peer = Peer::fork(|link| work(link, image, own_pages, seed))?;
        let digests = peer.receive().context("a guest cannot start")?;
        Ok(Self { peer, digests })
    }

    pub fn pid(&self) -> Pid {
        self.peer.pid()
    }

    /// A digest of each page that it began with.
    pub fn digests(&self) -> &[u64] {
        &self.digests
    }

    /// Lets it write to what it has had in common with others.
    pub fn write_image(&mut self) -> Result<()> {
        self.peer.send(Order::WriteImage)?;
        self.peer.await_step()
    }

    /// Lets it verify all of its memory.
    pub fn report(&mut self) -> Result<Report> {
        self.peer.send(Order::Report)?;
        self.peer.receive()
    }

    /// Ends it in order.
    pub fn end(mut self) -> Result<()> {
        self.peer.send(Order::End)?;
        self.peer.join()
    }

    /// Ends it with SIGKILL, whatever it is doing.
    pub fn kill(self) -> Result<()> {
        self.peer.kill()
    }
}

/// What is in the process.
struct Work {
    guest: Guest,
    image: Range<usize>,
    own: Range<usize>,
    rounds: u64,
    seed: u64,
    cpu_time: Duration,
    own_rounds: u32,
}

/// Verifies and writes until there is an order, and so on.
fn work(link: &mut Link, image: &[u8], own_pages: usize, seed: u64) -> Result<()> {
    link.wait_for_ever()?;
    let mut work = Work::new(image, own_pages, seed)?;
    link.send(work.digests())?;
    loop {
        let mut rest = Duration::ZERO;
        while !link.has_message_within(rest)? {
            let start = Instant::now();
            work.own_round()?;
            rest = REST * start.elapsed();
        }
        match link.receive()? {
            Order::WriteImage => {
                work.write(work.image.clone())?;
                link.step()?;
            }
            Order::Report => link.send(work.report()?)?,
            Order::End => return Ok(()),
        }
    }
}

impl Work {
    fn new(image: &[u8], own_pages: usize, seed: u64) -> Result<Self> {
        let content = [image, &pattern::pages(seed, own_pages)].concat();
        let image = 0..image.len() / PAGE_SIZE;
        Ok(Self {
            guest: Guest::new(Region::mergeable(&content)?, &content)?,
            own: image.end..image.end + own_pages,
            image,
            rounds: 0,
            seed: seed << 32,
            cpu_time: Duration::ZERO,
            own_rounds: 0,
        })
    }

    /// The first eight bytes of each page's digest: enough to tell how many pages are equal.
    fn digests(&self) -> Vec<u64> {
        let pages = self.guest.memory().into_iter();
        let pages = pages.flat_map(|memory| memory.chunks_exact(PAGE_SIZE));
        let digests = pages.map(|page| {
            let digest = blake3::hash(page);
            let (head, _) = digest.as_bytes().split_first_chunk().expect("32 bytes");
            u64::from_ne_bytes(*head)
        });
        digests.collect()
    }

    fn own_round(&mut self) -> Result<()> {
        let before = thread_time()?;
        self.round()?;
        self.cpu_time += thread_time()? - before;
        self.own_rounds += 1;
        Ok(())
    }

    fn round(&mut self) -> Result<()> {
        self.guest.verify()?;
        self.rounds += 1;
        self.write(self.own.clone())
    }

    fn write(&mut self, pages: Range<usize>) -> Result<()> {
        self.seed += 1;
        self.guest.write(Writes {
            pages,
            count: WRITES,
            seed: self.seed,
        })
    }

    fn report(&mut self) -> Result<Report> {
        self.guest.verify()?;
        self.rounds += 1;
        Ok(Report {
            rounds: self.rounds,
            wrong_bytes: self.guest.wrong_bytes() as u64,
            cpu_time: self.cpu_time,
            own_rounds: self.own_rounds,
        })
    }
}

/// How long this thread was on a CPU, its guest included.
fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
