// SPDX-License-Identifier: GPL-2.0

//! What a case is.

use std::fmt;

use anyhow::Result;
use ksm_tests::seed;

/// How the kernel is when a case begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// KSM is there: the module is loaded, or KSM is built in.
    Loaded,
    /// The module is not loaded; the case does that itself.
    Unloaded,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loaded => "rs",
            Self::Unloaded => "none",
        })
    }
}

/// What the user can choose.
#[derive(clap::Args)]
pub struct Options {
    /// Where random cases begin; by default anywhere.
    #[arg(long, default_value_t = seed::new(), hide_default_value = true)]
    pub seed: u64,

    /// How long cases run that could run for ever.
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
}

/// One behaviour test.
pub struct Case {
    /// How it is called.
    pub name: &'static str,
    /// What it shows, in a line.
    pub what: &'static str,
    /// How the kernel must be.
    pub mode: Mode,
    /// Memory that the VM needs.
    pub memory: &'static str,
    /// The lanes that can show it, each with what its VM needs: `um,x86:numa=2:cpus=4`.
    pub lanes: &'static str,
    /// Runs it.
    pub run: fn(&Options) -> Result<()>,
}

impl Case {
    /// A case that needs KSM to be there.
    pub const fn new(
        name: &'static str,
        what: &'static str,
        run: fn(&Options) -> Result<()>,
    ) -> Self {
        Self {
            name,
            what,
            mode: Mode::Loaded,
            memory: "256M",
            lanes: "um,x86",
            run,
        }
    }

    /// The same, but in these lanes.
    pub const fn on(self, lanes: &'static str) -> Self {
        Self { lanes, ..self }
    }

    /// The same, but with that much memory.
    pub const fn memory(self, memory: &'static str) -> Self {
        Self { memory, ..self }
    }

    /// The same, but the case loads the module itself.
    pub const fn unloaded(self) -> Self {
        Self {
            mode: Mode::Unloaded,
            ..self
        }
    }
}

/// The reason why a case cannot run here; an error that is none.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}
