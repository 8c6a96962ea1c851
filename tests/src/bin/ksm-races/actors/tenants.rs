// SPDX-License-Identifier: GPL-2.0

//! Processes that move from domain to domain, and an administrator who changes what that means.

use anyhow::{ensure, Result};
use ksm_tests::domain;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    actor::{rest, Actor},
    mirror::Mirror,
};

const PAGES: usize = 48;

/// How often others must be seen to map a page before that is believed: they may have had the frame a
/// moment ago.
const LOOKS: usize = 4;

/// Moves into a domain that others are in, or into one of its own, where it must be alone.
pub fn moving(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Moving {
        mirror: Mirror::new(random, PAGES)?,
        merged: 0,
    }))
}

struct Moving {
    mirror: Mirror,
    merged: usize,
}

impl Moving {
    /// Fails if somebody else has a page of this process, which is alone in its domain.
    fn ensure_alone(&self) -> Result<()> {
        let sees_others = || -> Result<bool> {
            let before = domain::rule()?;
            let sees_others = self.mirror.is_shared_with_others()?;
            Ok(sees_others && before != "shared" && domain::rule()? == before)
        };
        let mut seen = 0;
        while seen < LOOKS && sees_others()? {
            seen += 1;
        }
        ensure!(seen < LOOKS, "SHARED ACROSS DOMAINS");
        Ok(())
    }
}

impl Actor for Moving {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        for _ in 0..random.random_range(0..8) {
            self.mirror.write_somewhere(random);
        }
        match random.random_range(0..4) {
            3 => {
                domain::set("self", "private")?;
                self.ensure_alone()?;
                rest(random, 5_000);
                self.ensure_alone()?;
            }
            number => {
                domain::set("self", number)?;
                rest(random, 20_000);
            }
        }
        self.merged += self.mirror.merged_pages()?;
        self.mirror.verify()
    }

    fn has_succeeded(&self) -> bool {
        self.merged > 0
    }

    fn finish(&mut self) -> Result<()> {
        self.mirror.verify()
    }
}

/// Lets all, some or no processes share.
pub fn sorting(_: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Sorting))
}

struct Sorting;

impl Actor for Sorting {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        domain::set_rule(["shared", "marked", "private"][random.random_range(0..3)])?;
        rest(random, 50_000);
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        domain::set_rule("marked")
    }
}
