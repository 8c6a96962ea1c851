// SPDX-License-Identifier: GPL-2.0

//! One round of the soak.

use std::{fmt, ops::AddAssign, path::Path};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Counters, Run},
    module, wait,
};

use crate::program;

/// What happens in a round.
pub struct Round<'a> {
    pub seed: u64,
    /// How long each program goes on.
    pub seconds: u64,
    pub regressions: Option<&'a Path>,
}

/// How much has happened.
#[derive(Default)]
pub struct Done {
    rounds: u64,
    steps: u64,
    sequences: u64,
    operations: u64,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.steps += other.steps;
        self.sequences += other.sequences;
        self.operations += other.operations;
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds, {} random steps, {} sequences, {} operations, {} times unloaded",
            self.rounds, self.steps, self.sequences, self.operations, self.rounds
        )
    }
}

impl Round<'_> {
    /// Loads the module, unless it is there, lets both programs run, and unloads it.
    pub fn run(&self, file: &Path) -> Result<Done> {
        if !module::is_loaded()? {
            module::load(file)?;
        }
        let soak = program::output("ksm-case", &self.soak_arguments())?;
        let property = program::output("ksm-property", &self.property_arguments())?;
        unload()?;
        Ok(Done {
            rounds: 1,
            steps: program::count(&soak, "random steps")?,
            sequences: program::count(&property, "sequences")?,
            operations: program::count(&property, "operations")?,
        })
    }

    fn soak_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["soak-full".into()];
        arguments.extend(self.common_arguments());
        arguments
    }

    fn property_arguments(&self) -> Vec<String> {
        let mut arguments = self.common_arguments();
        if let Some(directory) = self.regressions {
            arguments.extend(["--regressions".into(), directory.display().to_string()]);
        }
        arguments
    }

    fn common_arguments(&self) -> Vec<String> {
        let values = [("--seed", self.seed), ("--seconds", self.seconds)];
        let words = values.map(|(name, value)| [name.to_owned(), value.to_string()]);
        words.into_iter().flatten().collect()
    }
}

/// Unmerges everything and unloads the module, as soon as nobody uses it.
fn unload() -> Result<()> {
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "after run=2: {now}");
    wait::until("the module's end", || {
        // What has gone meanwhile has left its node.
        ksm::set_run(Run::Unmerge)?;
        Ok(module::try_unload().ok())
    })
    .context("cannot unload ksm_rs")
}
