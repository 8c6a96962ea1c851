// SPDX-License-Identifier: GPL-2.0

//! A process that does one thing over and over.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use ksm_tests::{peer::Peer, wait::STALL_LIMIT};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// What an actor does, and what it holds meanwhile.
pub trait Actor {
    /// Does it once, and fails if a byte is not what it must be.
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()>;

    /// Whether it has done by now what it is there for, and not only tried to.
    fn has_succeeded(&self) -> bool {
        true
    }

    /// Looks at everything once more when it is over.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Makes an actor in its own process.
pub type Make = fn(&mut ChaCha8Rng) -> Result<Box<dyn Actor>>;

/// Starts a process for the actor; when the others are ready too, it works for so long, and then
/// sends the number of its rounds.
pub fn start(make: Make, seed: u64, length: Duration) -> Result<Peer> {
    Peer::fork(|link| {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut actor = make(&mut random)?;
        link.send(())?;
        link.await_step()?;
        let begin = Instant::now();
        let mut rounds = 0u64;
        // However slow the machine is, each actor has its turn.
        let has_time = |succeeded| begin.elapsed() < if succeeded { length } else { STALL_LIMIT };
        while rounds == 0 || has_time(actor.has_succeeded()) {
            actor
                .round(&mut random)
                .with_context(|| format!("round {rounds}"))?;
            rounds += 1;
        }
        ensure!(actor.has_succeeded(), "nothing in {rounds} rounds");
        link.send(rounds)?;
        // The others may still be at work.
        link.await_step()?;
        actor.finish()
    })
}

/// Lets others work for up to so many microseconds, or not at all.
pub fn rest(random: &mut ChaCha8Rng, at_most_us: u64) {
    if random.random() {
        std::thread::sleep(Duration::from_micros(random.random_range(0..at_most_us)));
    }
}
