// SPDX-License-Identifier: GPL-2.0

//! What a process does to its own memory.

use anyhow::{ensure, Result};
use ksm_tests::{merge_any, peer::Peer, region::Region, PAGE_SIZE};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    actor::{rest, Actor},
    mirror::{draw_pages, Mirror},
};

const PAGES: usize = 48;

/// Starts processes that hold what others hold, and end at any moment.
pub fn exiting(_: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Exiting))
}

struct Exiting;

impl Actor for Exiting {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let content = draw_pages(random, PAGES);
        let (by_itself, everything): (bool, bool) = (random.random(), random.random());
        let mut peer = Peer::fork(|link| {
            if everything {
                merge_any::set(true)?;
            }
            let region = Region::mergeable(&content)?;
            link.step()?;
            if !by_itself {
                link.await_step()?;
            }
            region.verify(&content)
        })?;
        peer.await_step()?;
        rest(random, 20_000);
        match by_itself {
            true => peer.join(),
            false => peer.kill(),
        }
    }
}

/// Maps, and unmaps, discards or moves, in whole and in part.
pub fn unmapping(_: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Unmapping))
}

struct Unmapping;

impl Actor for Unmapping {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let mut mirror = Mirror::new(random, PAGES)?;
        rest(random, 10_000);
        match random.random_range(0..4) {
            0 => {
                let at = random.random_range(1..PAGES);
                drop(mirror.region.split_off(at)?);
                mirror.expected.truncate(at * PAGE_SIZE);
            }
            1 => {
                mirror.region.discard()?;
                mirror.expected.fill(0);
            }
            2 => mirror.region.relocate()?,
            _ => {}
        }
        rest(random, 3_000);
        mirror.verify()
    }
}

/// Writes pages that become equal to others, or cease to be.
pub fn writing(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Writing(Mirror::new(random, PAGES)?)))
}

struct Writing(Mirror);

impl Actor for Writing {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        for _ in 0..random.random_range(1..PAGES) {
            self.0.write_somewhere(random);
        }
        rest(random, 3_000);
        self.0.verify()
    }

    fn finish(&mut self) -> Result<()> {
        self.0.verify()
    }
}

/// Holds a huge page of pages that others have as well, writes to it, and has it made huge again.
pub fn collapsing(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    let mirror = Mirror::huge(random)?;
    Ok(Box::new(Collapsing {
        mirror,
        collapsed: 0,
    }))
}

struct Collapsing {
    mirror: Mirror,
    collapsed: usize,
}

impl Actor for Collapsing {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        for _ in 0..random.random_range(0..8) {
            self.mirror.write_somewhere(random);
        }
        rest(random, 20_000);
        // Refused if somebody looks at a page just then, as the scanner mostly does.
        let unadvised: bool = random.random();
        let region = &self.mirror.region;
        if unadvised {
            region.advise_unmergeable()?;
        }
        let collapsed = region.advise_raw(libc::MADV_COLLAPSE);
        self.collapsed += usize::from(collapsed.is_ok());
        if unadvised {
            region.advise_mergeable()?;
        }
        self.mirror.verify()
    }

    fn has_succeeded(&self) -> bool {
        self.collapsed > 0
    }

    fn finish(&mut self) -> Result<()> {
        self.mirror.verify()
    }
}

/// Takes the advice back, and gives it again.
pub fn unadvising(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Unadvising(Mirror::new(random, PAGES)?)))
}

struct Unadvising(Mirror);

impl Actor for Unadvising {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let mirror = &mut self.0;
        mirror.region.advise_unmergeable()?;
        mirror.verify()?;
        let merged = mirror.merged_pages()?;
        ensure!(merged == 0, "{merged} pages are merged without advice");
        mirror.write_somewhere(random);
        mirror.region.advise_mergeable()?;
        rest(random, 10_000);
        mirror.verify()
    }

    fn finish(&mut self) -> Result<()> {
        self.0.verify()
    }
}

/// Starts processes that offer all that they have, change their minds, fork and end.
pub fn advising_all(_: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(AdvisingAll))
}

struct AdvisingAll;

impl Actor for AdvisingAll {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let content = draw_pages(random, PAGES);
        let (turns, pause) = (random.random_range(1..4), random.random_range(0..5_000));
        Peer::fork(|_| {
            let region = Region::with_content(&content)?;
            for _ in 0..turns {
                merge_any::set(true)?;
                std::thread::sleep(std::time::Duration::from_micros(pause));
                Peer::fork(|_| region.verify(&content))?.join()?;
                merge_any::set(false)?;
                region.verify(&content)?;
            }
            Ok(())
        })?
        .join()
    }
}
