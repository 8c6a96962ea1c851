// SPDX-License-Identifier: GPL-2.0

//! Memory that is scanned at a steady pace for a while, for a neighbour on the host to be measured meanwhile.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use ksm_tests::{
    ksm::{self, Run, Scanner},
    own_settings::{self, Setting},
    pattern,
    region::Region,
    MIB, PAGE_SIZE,
};
use serde::Serialize;

use crate::{fill, paced::SLEEP_MILLISECS};

/// How the memory is scanned.
#[derive(clap::Args)]
pub struct Order {
    /// Amount of memory that is offered to KSM.
    #[arg(long, default_value_t = 1024)]
    mib: usize,

    /// How long, once the memory is known to KSM.
    #[arg(long)]
    seconds: u64,

    /// Pages that the scanner is to pass in a second, 0 for none; by default as many as it can.
    #[arg(long)]
    pace: Option<u64>,

    /// Milliseconds that the scanner pauses between two steps of that pace: the longer, the longer are the steps.
    #[arg(long, default_value_t = SLEEP_MILLISECS)]
    pause: u32,

    /// Pages that come to have an equal one in a second.
    #[arg(long, default_value_t = 0)]
    merging: usize,

    /// Have a file of `/sys/kernel/mm/ksm_rs` set to another value than its default.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<Setting>,
}

/// What has happened meanwhile.
#[derive(Serialize)]
struct Held {
    pages_per_second: f64,
    merged_per_second: f64,
}

/// Full scans before anything is measured: in the first one all pages are new, in the second one they are known not
/// to change.
const SCANS_BEFORE: u64 = 2;

/// Pages of a step at full speed: a fraction of a millisecond.
const FULL_SPEED_STEP: u64 = 1_000;

/// Between two changes of the memory.
const BEAT: Duration = Duration::from_millis(100);

/// How often the step is corrected, and how long each is tried.
const CORRECTIONS: usize = 4;
const TRIAL: Duration = Duration::from_millis(700);

const SEED: u64 = 3;

/// Prints `ready` when the scan has its pace, and the sums in the end.
pub fn hold(order: &Order) -> Result<()> {
    own_settings::want(order.settings.clone());
    let scanner = Scanner::prepare()?;
    let mut memory = Region::new(order.mib * MIB / PAGE_SIZE)?;
    fill::unique(memory.bytes_mut());
    memory.advise_mergeable()?;
    ksm::set_run(Run::Merge)?;
    scanner.scans(SCANS_BEFORE)?;
    match order.pace {
        None => ksm::write("pages_to_scan", FULL_SPEED_STEP)?,
        Some(0) => ksm::set_run(Run::Stop)?,
        Some(pace) => keep_pace(pace, order.pause)?,
    }
    println!("ready");
    let before = Progress::now()?;
    let mut renewal = Renewal::new(order.merging);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(order.seconds) {
        thread::sleep(BEAT);
        renewal.renew(&mut memory, begin.elapsed());
    }
    println!("{}", serde_json::to_string(&before.until_now()?)?);
    Ok(())
}

/// Finds the step with which the scanner passes so many pages a second.
fn keep_pace(pace: u64, pause: u32) -> Result<()> {
    let mut step = (pace * u64::from(pause) / 1000).max(1);
    ksm::write("sleep_millisecs", pause)?;
    for _ in 0..CORRECTIONS {
        ksm::write("pages_to_scan", step)?;
        let before = Progress::now()?;
        thread::sleep(TRIAL);
        let passed = before.until_now()?.pages_per_second;
        step = (step as f64 * pace as f64 / passed.max(1.0)).ceil() as u64;
    }
    ksm::write("pages_to_scan", step)
}

/// Counters at one moment.
struct Progress {
    at: Instant,
    pages: u64,
    sharing: u64,
}

impl Progress {
    fn now() -> Result<Self> {
        let untouched = match ksm::is_ours() {
            true => ksm::read_own("pages_untouched")?,
            false => 0,
        };
        Ok(Self {
            at: Instant::now(),
            pages: ksm::read::<u64>("pages_scanned")? + untouched,
            sharing: ksm::counters()?.sharing,
        })
    }

    fn until_now(&self) -> Result<Held> {
        let now = Self::now()?;
        let seconds = (now.at - self.at).as_secs_f64();
        Ok(Held {
            pages_per_second: (now.pages - self.pages) as f64 / seconds,
            merged_per_second: now.sharing.saturating_sub(self.sharing) as f64 / seconds,
        })
    }
}

/// Gives new contents to pages, two of each.
struct Renewal {
    pairs_per_second: usize,
    renewed: usize,
}

impl Renewal {
    fn new(pairs_per_second: usize) -> Self {
        Self {
            pairs_per_second,
            renewed: 0,
        }
    }

    /// Renews as many as are due after this time.
    fn renew(&mut self, memory: &mut Region, elapsed: Duration) {
        let due = (elapsed.as_secs_f64() * self.pairs_per_second as f64) as usize;
        let half = memory.len() / PAGE_SIZE / 2;
        for number in self.renewed..due {
            let content = pattern::page(SEED, number);
            for page in [number % half, half + number % half] {
                memory.page_mut(page).copy_from_slice(&content);
            }
        }
        self.renewed = due.max(self.renewed);
    }
}
