// SPDX-License-Identifier: GPL-2.0

//! Guests that run Linux in QEMU.

use std::{collections::HashSet, fs, path::PathBuf, time::Instant};

use anyhow::{ensure, Context, Result};
use blake3::Hash;
use clap::Args;
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    MIB, PAGE_SIZE,
};

use crate::{
    hypervisor::{Hypervisor, Machine},
    image, initramfs,
    record::{Record, Watch},
    survey::Survey,
};

/// At this part of the duplicates the time is taken.
const NEARLY_ALL: f64 = 0.95;

/// Of the duplicates among the pages of files, the least part that must be merged.
const LEAST_PART: f64 = 0.9;

#[derive(Args)]
pub struct Options {
    /// The kernel that guests boot.
    #[arg(long)]
    kernel: PathBuf,

    /// Number of guests.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    guests: u32,

    /// MiB of memory that each has.
    #[arg(long, default_value_t = 64)]
    memory: usize,

    /// MiB of the same files that each holds.
    #[arg(long, default_value_t = 4)]
    mib: usize,

    /// MiB of data that each has for itself.
    #[arg(long, default_value_t = 1)]
    own_mib: usize,

    /// Print how the merging went, in JSON, as the last line.
    #[arg(long)]
    json: bool,
}

/// Boots guests, merges their memory, and lets them verify it.
pub fn run(options: &Options) -> Result<()> {
    let data = image::of_pages(options.mib * MIB / PAGE_SIZE, None)?;
    let contents = contents(&data);
    let scanner = Scanner::prepare()?;
    let mut guests = Guests::start(options, data)?;
    let record = merge(&guests, &scanner)?;
    guests.verify()?;
    ensure_merged(&guests.survey()?.with_contents(&contents))?;
    unmerge()?;
    guests.verify()?;
    say(format_args!("the guests agree, merged and unmerged"));
    ksm::set_run(Run::Merge)?;
    guests.end()?;
    println!(
        "{} guests of QEMU, {:.1} % of {} duplicate pages merged; they agree",
        options.guests, record.percent, record.duplicates
    );
    if options.json {
        println!("{}", serde_json::to_string(&record)?);
    }
    Ok(())
}

/// Merges what can be merged.
fn merge(guests: &Guests, scanner: &Scanner) -> Result<Record> {
    let before = guests.survey()?;
    let duplicates = before.duplicates();
    say(format_args!(
        "they have {} pages, {duplicates} of them duplicates",
        before.pages()
    ));
    let record = Watch::start()?.record(scanner, duplicates, NEARLY_ALL)?;
    say(format_args!("{}", ksm::counters()?));
    Ok(record)
}

/// Guests have more pages of zeros than of all else, so what is counted together may deceive.
fn ensure_merged(files: &Survey) -> Result<()> {
    let (duplicates, saved) = (files.duplicates(), files.saved());
    say(format_args!(
        "{} pages are of files: {duplicates} duplicates, {saved} saved",
        files.pages()
    ));
    ensure!(
        saved as f64 >= duplicates as f64 * LEAST_PART,
        "too few pages of files are merged"
    );
    Ok(())
}

/// Parts all that is merged, while the guests run.
fn unmerge() -> Result<()> {
    ksm::set_run(Run::Unmerge)?;
    let left = ksm::counters()?;
    ensure!(left == Counters::ZERO, "run=2 left pages merged: {left}");
    Ok(())
}

/// What pages hold, but for zeros, which are everywhere.
fn contents(data: &[u8]) -> HashSet<Hash> {
    let pages = data.chunks(PAGE_SIZE);
    let pages = pages.filter(|page| **page != [0; PAGE_SIZE]);
    pages.map(blake3::hash).collect()
}

/// Guests that hold the same data.
struct Guests {
    hypervisors: Vec<Hypervisor>,
    digest: String,
}

impl Guests {
    /// Starts all of them, and waits until each has said what it holds.
    fn start(options: &Options, data: Vec<u8>) -> Result<Self> {
        let start = Instant::now();
        let digest = blake3::hash(&data).to_string();
        let archive = std::env::temp_dir().join("ksm-kvm-initramfs");
        initramfs::write(&archive, data)?;
        let machine = |seed| Machine {
            kernel: &options.kernel,
            initramfs: &archive,
            memory: options.memory,
            arguments: format!("inside --own-mib {} --seed {seed}", options.own_mib),
        };
        let hypervisors = (0..options.guests).map(|seed| Hypervisor::start(&machine(seed)));
        let mut guests = Self {
            hypervisors: hypervisors.collect::<Result<_>>()?,
            digest,
        };
        guests.verify()?;
        fs::remove_file(&archive).context("initramfs")?;
        let seconds = start.elapsed().as_secs();
        let count = guests.hypervisors.len();
        say(format_args!("{count} guests run after {seconds} s"));
        Ok(guests)
    }

    /// Lets every guest verify its memory once more.
    fn verify(&mut self) -> Result<()> {
        for hypervisor in &mut self.hypervisors {
            let digest = hypervisor.digest()?;
            ensure!(
                digest == self.digest,
                "DATA LOST: a guest has {digest} instead of {}",
                self.digest
            );
        }
        Ok(())
    }

    fn survey(&self) -> Result<Survey> {
        let processes: Vec<_> = self.hypervisors.iter().map(Hypervisor::id).collect();
        Survey::of(&processes)
    }

    /// Ends one after the other, while those that are left verify their memory.
    fn end(mut self) -> Result<()> {
        while let Some(hypervisor) = self.hypervisors.pop() {
            hypervisor.end()?;
            self.verify()?;
        }
        Ok(())
    }
}

fn say(what: std::fmt::Arguments) {
    println!("  - {what}");
}
