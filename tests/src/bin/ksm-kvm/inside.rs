// SPDX-License-Identifier: GPL-2.0

//! The first program of a guest that runs Linux: it holds data in memory, verifies it again and
//! again, and tells its digest over the serial line, until a line arrives there.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
    thread,
    time::Duration,
};

use anyhow::{ensure, Context, Result};
use clap::Args;
use ksm_tests::{pattern, region::Region, MIB, PAGE_SIZE};
use nix::{
    mount::{mount, MsFlags},
    sys::reboot::{reboot, RebootMode},
};

use crate::initramfs::DATA;

/// Between two rounds, so that the host gets its turn.
const PAUSE: Duration = Duration::from_secs(1);

const SERIAL_LINE: &str = "/dev/ttyS0";

#[derive(Args)]
pub struct Options {
    /// MiB of random data that no other guest has.
    #[arg(long)]
    pub own_mib: usize,

    /// What makes that data random.
    #[arg(long)]
    pub seed: u64,
}

/// Runs until it is told to end, and then ends the machine.
pub fn run(options: &Options) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/dev", Some("devtmpfs"), MsFlags::empty(), none).context("mount of /dev")?;
    let mut line = OpenOptions::new().write(true).open(SERIAL_LINE)?;
    writeln!(line, "ksm-kvm: begins")?;
    let is_over = await_line(File::open(SERIAL_LINE)?);
    if let Err(error) = work(options, &mut line, &is_over) {
        writeln!(line, "ksm-kvm: error {error:#}")?;
    }
    reboot(RebootMode::RB_POWER_OFF).context("power off")?;
    Ok(())
}

/// Will be true when a line has come.
fn await_line(serial_line: File) -> Arc<AtomicBool> {
    let is_over = Arc::new(AtomicBool::new(false));
    let set = is_over.clone();
    thread::spawn(move || {
        let mut text = String::new();
        // If nothing can be read, there is nobody any more who could end us.
        let _ = BufReader::new(serial_line).read_line(&mut text);
        set.store(true, Ordering::Release);
    });
    is_over
}

fn work(options: &Options, line: &mut File, is_over: &AtomicBool) -> Result<()> {
    // The file is memory as well: each guest has its pages twice.
    let copy = Region::with_content(&fs::read(DATA).context(DATA)?)?;
    let own = pattern::pages(options.seed, options.own_mib * MIB / PAGE_SIZE);
    let own_digest = blake3::hash(&own);
    for round in 0u64.. {
        let digest = blake3::hash(copy.bytes());
        ensure!(
            digest == blake3::hash(&fs::read(DATA)?),
            "the file differs from its copy"
        );
        ensure!(
            blake3::hash(&own) == own_digest,
            "DATA LOST: data of its own"
        );
        writeln!(line, "ksm-kvm: round {round} {digest}")?;
        if is_over.load(Ordering::Acquire) {
            break;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
