// SPDX-License-Identifier: GPL-2.0

//! One trial after the other.

use std::cmp::Ordering;

use anyhow::{Context, Result};
use ksm_tests::{
    domain,
    ksm::{self, Scanner},
};
use rand_chacha::{
    rand_core::{Rng, SeedableRng},
    ChaCha8Rng,
};

use crate::{actor::Actor, channel::Channel, frames::Pair, record::Record, First, Options};

/// Scans until equal pages that were just written have merged: the first one sees their checksums, the
/// second one that these stay.
const SCANS: usize = 3;

/// Reads of a page in a trial.
const READS: usize = 8;

/// The processes, which stay for all trials.
pub struct Stage {
    victim: [Actor; 2],
    attacker: [Actor; 2],
    random: ChaCha8Rng,
    /// No page of a lower number was held before.
    next_page: u64,
}

impl Stage {
    pub fn new(options: &Options, seed: u64) -> Result<Self> {
        let pair = || -> Result<_> { Ok([Actor::start()?, Actor::start()?]) };
        let (victim, attacker) = match options.first {
            First::Victim => {
                let victim = pair()?;
                (victim, pair()?)
            }
            First::Attacker => {
                let attacker = pair()?;
                (pair()?, attacker)
            }
        };
        if let Some([ours, theirs]) = options.domains.as_deref() {
            for (actors, name) in [(&victim, ours), (&attacker, theirs)] {
                for actor in actors {
                    domain::set(actor.pid(), name)?;
                }
            }
        }
        if options.fresh_frames {
            ksm::write_own("fresh_frames", 1)?;
        }
        if options.hide_counters {
            ksm::hide_from_users()?;
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let next_page = random.next_u64() >> 1;
        Ok(Self {
            victim,
            attacker,
            random,
            next_page,
        })
    }

    /// Asks by all channels.
    pub fn trial(&mut self, scanner: &Scanner, record: &mut Record) -> Result<()> {
        record.trials += 1;
        self.ask_of_pages(scanner, record)?;
        self.ask_with_one_page(scanner, record)?;
        self.ask_without_pages(scanner, record)
    }

    /// The attacker holds both pages.
    fn ask_of_pages(&mut self, scanner: &Scanner, record: &mut Record) -> Result<()> {
        let (pages, secret) = (self.new_pages(), self.coin());
        self.victim[0].hold(pages[secret])?;
        for (attacker, page) in self.attacker.iter_mut().zip(pages) {
            attacker.hold(page)?;
        }
        let before = self.frames(secret)?;
        scan(scanner)?;
        record.frames.note(before, self.frames(secret)?);
        for channel in Channel::THAT_LOOK {
            let told = self.look(channel)?;
            record.note(channel, self.decide(told) == secret);
        }
        let told = self.time_reads()?;
        record.note(Channel::ReadTime, self.decide(told) == secret);
        let (told, cows) = self.write()?;
        record.note(Channel::WriteTime, self.decide(told) == secret);
        record.note(Channel::CowKsm, self.decide(cows) == secret);
        Ok(())
    }

    /// What a channel tells of each page.
    fn look(&mut self, channel: Channel) -> Result<[i64; 2]> {
        let [one, two] = &mut self.attacker;
        Ok([one.ask(channel)?, two.ask(channel)?])
    }

    /// The shortest times of reads of each page, after reads by the victim.
    fn time_reads(&mut self) -> Result<[i64; 2]> {
        let mut shortest = [i64::MIN; 2];
        for _ in 0..READS {
            for attacker in &mut self.attacker {
                attacker.flush()?;
            }
            self.victim[0].read()?;
            for (shortest, told) in shortest.iter_mut().zip(self.look(Channel::ReadTime)?) {
                *shortest = told.max(*shortest);
            }
        }
        Ok(shortest)
    }

    /// How long a write to each page takes, and what `cow_ksm` tells of it.
    fn write(&mut self) -> Result<([i64; 2], [i64; 2])> {
        let (mut times, mut cows) = ([0; 2], [0; 2]);
        for (guess, attacker) in self.attacker.iter_mut().enumerate() {
            let before = attacker.ask(Channel::CowKsm)?;
            times[guess] = attacker.ask(Channel::WriteTime)?;
            cows[guess] = attacker.ask(Channel::CowKsm)? - before;
        }
        Ok((times, cows))
    }

    /// The attacker holds one of the two pages alone.
    fn ask_with_one_page(&mut self, scanner: &Scanner, record: &mut Record) -> Result<()> {
        let (pages, secret) = (self.new_pages(), self.coin());
        self.victim[0].hold(pages[secret])?;
        self.attacker[0].hold(pages[0])?;
        scan(scanner)?;
        let sharing = self.attacker[0].ask(Channel::PagesSharing)?;
        let guess = usize::from(sharing == 0);
        record.note(Channel::PagesSharing, guess == secret);
        Ok(())
    }

    /// The victim holds a page twice, or two pages.
    fn ask_without_pages(&mut self, scanner: &Scanner, record: &mut Record) -> Result<()> {
        let (pages, secret) = (self.new_pages(), self.coin());
        self.victim[0].hold(pages[0])?;
        self.victim[1].hold(pages[secret])?;
        scan(scanner)?;
        let sharing = self.attacker[0].ask(Channel::VictimsPairs)?;
        let guess = usize::from(sharing == 0);
        record.note(Channel::VictimsPairs, guess == secret);
        self.victim[1].hold(self.next_page)?;
        self.next_page += 1;
        Ok(())
    }

    /// Which of the two pages the victim holds, by what a channel tells of each.
    fn decide(&mut self, told: [i64; 2]) -> usize {
        match told[0].cmp(&told[1]) {
            Ordering::Greater => 0,
            Ordering::Less => 1,
            Ordering::Equal => self.coin(),
        }
    }

    fn frames(&self, guess: usize) -> Result<Pair> {
        Ok(Pair {
            victim: self.victim[0].frame().context("the victim")?,
            attacker: self.attacker[guess].frame().context("the attacker")?,
        })
    }

    fn new_pages(&mut self) -> [u64; 2] {
        let page = self.next_page;
        self.next_page += 2;
        [page, page + 1]
    }

    fn coin(&mut self) -> usize {
        (self.random.next_u32() & 1) as usize
    }

    pub fn end(self) -> Result<()> {
        let actors = self.victim.into_iter().chain(self.attacker);
        actors.into_iter().try_for_each(Actor::end)
    }
}

fn scan(scanner: &Scanner) -> Result<()> {
    (0..SCANS).try_for_each(|_| scanner.scan_once())
}
