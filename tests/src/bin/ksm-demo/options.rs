// SPDX-License-Identifier: GPL-2.0

//! What the user can choose.

use anyhow::Result;
use clap::Parser;
use ksm_tests::{ksm, MIB, PAGE_SIZE};

#[derive(Parser)]
#[command(about = "Shows how KSM merges the memory of real processes and loses none of it")]
pub struct Options {
    /// Number of processes that hold the same data.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..))]
    pub processes: u32,

    /// MiB of data that all processes have in common.
    #[arg(long, default_value_t = 32)]
    pub mib: usize,

    /// MiB of data that each process has for itself.
    #[arg(long, default_value_t = 4)]
    pub private_mib: usize,

    /// Pages that ksmd looks at before it sleeps.
    #[arg(long, default_value_t = 10_000)]
    pub pages_to_scan: u32,

    /// Milliseconds that ksmd sleeps.
    #[arg(long, default_value_t = 100)]
    pub sleep_millisecs: u32,
}

impl Options {
    /// Pages that all processes have in common.
    pub fn common_pages(&self) -> u64 {
        (self.mib * MIB / PAGE_SIZE) as u64
    }

    /// Pages that each process has for itself.
    pub fn private_pages(&self) -> u64 {
        (self.private_mib * MIB / PAGE_SIZE) as u64
    }

    /// Makes the scanner as fast as the user wants.
    pub fn apply_tunables(&self) -> Result<()> {
        ksm::write("pages_to_scan", self.pages_to_scan)?;
        ksm::write("sleep_millisecs", self.sleep_millisecs)
    }
}
