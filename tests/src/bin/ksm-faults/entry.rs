// SPDX-License-Identifier: GPL-2.0

//! The entries of the module, and the walk over the allocations of each.

use std::collections::BTreeSet;

use anyhow::{bail, Context, Result};
use ksm_tests::{
    faults::{self, Scope},
    ksm::Scanner,
    module,
    peer::Peer,
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, Ending};

/// More allocations than any entry makes.
const LIMIT: u32 = 20_000;

/// Something that enters the module.
pub struct Entry {
    pub name: String,
    /// Whether the entry begins with the module loaded.
    pub loaded: bool,
    /// Enters it while allocation number so many fails, looks at everything, and does it once more
    /// without a fault if it was refused.
    pub attempt: Box<dyn Fn(u32) -> Result<Attempt>>,
}

impl Entry {
    pub fn new(
        name: impl Into<String>,
        attempt: impl Fn(u32) -> Result<Attempt> + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            loaded: true,
            attempt: Box::new(attempt),
        }
    }

    /// The same, but the entry loads the module itself.
    pub fn unloaded(self) -> Self {
        Self {
            loaded: false,
            ..self
        }
    }

    /// Lets one allocation after the other fail, until there are no more.
    pub fn walk(&self, scope: Scope) -> Result<Tally> {
        faults::prepare(scope)?;
        let mut tally = Tally::default();
        if !self.loaded {
            module::unload()?;
            self.walk_on(&mut tally)?;
            module::load(&module::file().context("$KSM_RS_KO is not set")?)?;
        } else {
            // Not here: this process must not be known to KSM, nor by it those that it forks.
            Peer::fork(|_| Scanner::prepare().map(drop))?.join()?;
            self.walk_on(&mut tally)?;
        }
        Ok(tally)
    }

    fn walk_on(&self, tally: &mut Tally) -> Result<()> {
        for nth in 1..LIMIT {
            let attempt = (self.attempt)(nth).with_context(|| format!("allocation {nth}"))?;
            if !attempt.went_off {
                return Ok(());
            }
            tally.note(attempt);
        }
        bail!("{LIMIT} allocations, and no end");
    }
}

/// What a walk has seen.
#[derive(Default, Serialize, Deserialize)]
pub struct Tally {
    pub faults: usize,
    refused: usize,
    killed: usize,
    errors: BTreeSet<i32>,
}

impl Tally {
    fn note(&mut self, attempt: Attempt) {
        self.faults += 1;
        match attempt.ending {
            Ending::Done => {}
            Ending::Refused(errno) => {
                self.refused += 1;
                self.errors.insert(errno);
            }
            Ending::Killed => self.killed += 1,
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:5} faults", self.faults)?;
        if self.refused > 0 {
            let names = self.errors.iter().map(|errno| {
                // "ENOMEM: Cannot allocate memory"
                format!("{:?}", Errno::from_raw(*errno))
            });
            let names: Vec<_> = names.collect();
            write!(f, ", {} refused ({})", self.refused, names.join(", "))?;
        }
        if self.killed > 0 {
            write!(f, ", {} killed", self.killed)?;
        }
        let without_effect = self.faults - self.refused - self.killed;
        if without_effect > 0 {
            write!(f, ", {without_effect} made up for")?;
        }
        Ok(())
    }
}
