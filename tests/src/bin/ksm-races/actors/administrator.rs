// SPDX-License-Identifier: GPL-2.0

//! What an administrator does to KSM.

use std::time::Duration;

use anyhow::{bail, Context, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Run},
    module,
};
use nix::errno::Errno;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    actor::{rest, Actor},
    mirror::Mirror,
    scan,
};

/// Unmerges everything, and lets it merge again.
pub fn unmerging(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Unmerging(Mirror::new(random, 16)?)))
}

struct Unmerging(Mirror);

impl Actor for Unmerging {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        ksm::set_run(Run::Unmerge)?;
        self.0.verify()?;
        ksm::set_run(Run::Merge)?;
        rest(random, 20_000);
        Ok(())
    }
}

/// Unloads the module when that is allowed, and loads it.
pub fn reloading(_: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Reloading { unloaded: 0 }))
}

struct Reloading {
    unloaded: usize,
}

impl Actor for Reloading {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        ksm::set_run(Run::Unmerge)?;
        match module::try_unload() {
            Ok(()) => {
                self.unloaded += 1;
                std::thread::sleep(Duration::from_micros(random.random_range(0..2_000)));
                module::load(&module::file().context("$KSM_RS_KO is not set")?)?;
                scan::prepare(random.random())?;
            }
            // A page that a fork has inherited just now.
            Err(Errno::EAGAIN) => {}
            Err(error) => bail!("unloading: {error}"),
        }
        ksm::set_run(Run::Merge)?;
        std::thread::sleep(Duration::from_micros(random.random_range(0..30_000)));
        Ok(())
    }

    fn has_succeeded(&self) -> bool {
        self.unloaded > 0
    }
}

/// Writes to every file, and reads what there is to read.
pub fn tuning(_: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Tuning))
}

struct Tuning;

/// Files, and what they take.
const TUNABLES: &[(&str, &[&str])] = &[
    ("run", &["0", "1", "1", "1", "2"]),
    ("pages_to_scan", &["1", "64", "1000", "10000"]),
    ("sleep_millisecs", &["0", "1", "5"]),
    ("use_zero_pages", &["0", "1"]),
    ("smart_scan", &["0", "1"]),
    ("max_page_sharing", &["2", "3", "256"]),
    ("merge_across_nodes", &["0", "1"]),
    ("stable_node_chains_prune_millisecs", &["0", "2000"]),
    ("advisor_mode", &["none", "scan-time"]),
    ("advisor_target_scan_time", &["1", "200"]),
];

/// The same for what only `ksm_rs` has.
const OWN_TUNABLES: &[(&str, &[&str])] = &[
    ("huge_page_min_equal", &["1", "2", "64", "512"]),
    ("only_zero_pages", &["0", "0", "1"]),
    ("skip_untouched", &["0", "1"]),
];

impl Actor for Tuning {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        if ksm::is_ours() {
            let (file, values) = OWN_TUNABLES[random.random_range(0..OWN_TUNABLES.len())];
            ksm::write_own(file, values[random.random_range(0..values.len())])?;
        }
        let (file, values) = TUNABLES[random.random_range(0..TUNABLES.len())];
        if ksm::path(file).exists() {
            // Some are busy while pages are merged.
            let _ = ksm::write(file, values[random.random_range(0..values.len())]);
        }
        for entry in std::fs::read_dir(ksm::DIRECTORY).context("no directory of KSM")? {
            control_file::read_text(entry?.path())?;
        }
        rest(random, 2_000);
        Ok(())
    }
}
