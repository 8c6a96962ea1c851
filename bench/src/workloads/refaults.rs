// SPDX-License-Identifier: GPL-2.0

//! What reclaim still knows of who uses which pages: how often a process misses a page that was swapped out, in a
//! group that has less memory than the process touches.

use anyhow::{ensure, Result};
use ksm_tests::{
    cgroup::{self, Cgroup},
    peer::{Link, Peer},
    region::Region,
    swap::Swap,
    PAGE_SIZE,
};
use nix::unistd::Pid;
use rand_chacha::{
    rand_core::{Rng, SeedableRng},
    ChaCha8Rng,
};

use crate::{fill, ksmd::Ksmd, report::Measures, workload::Plan};

/// Full scans, and what the process touches between two of them: as many pages as it has, some of them again.
const SCANS: usize = 24;

/// Scans until reclaim has found its way.
const SCANS_BEFORE: usize = 8;

/// In so many pieces, which are small beside what the group has.
const PIECES: usize = 64;

/// Four in five times the process touches one of a fifth of its pages.
const HOT: usize = 5;

/// Of the memory that the process touches, what the group may have: a little more than that fifth.
const ROOM: (usize, usize) = (1, 2);

/// All pages are unlike each other, and take little room when they are compressed.
const SHARERS: usize = 1;

const SEED: u64 = 4;

pub fn refaults(plan: &Plan) -> Result<Measures> {
    let mut ksmd = Ksmd::prepare()?;
    let swap = Swap::on(plan.pages * PAGE_SIZE)?;
    let group = Cgroup::new("short")?;
    group.add(Pid::this())?;
    let mut process = Peer::fork(|link| touch(link, plan.pages))?;
    cgroup::leave(Pid::this())?;
    process.await_step()?;
    group.limit(plan.pages * PAGE_SIZE / ROOM.1 * ROOM.0)?;
    let mut before = 0;
    for scan in 0..SCANS {
        if scan == SCANS_BEFORE {
            before = group.statistic("workingset_refault_anon")?;
        }
        for _ in 0..PIECES {
            process.send(plan.pages / PIECES)?;
            process.await_step()?;
            // Reclaim goes by statistics that a reader of them brings up to date.
            group.statistic("anon")?;
        }
        ksmd.scan()?;
    }
    let refaults = group.statistic("workingset_refault_anon")? - before;
    process.kill()?;
    swap.off()?;
    ensure!(refaults > 0, "there was room for all");
    let touches = plan.pages / PIECES * PIECES * (SCANS - SCANS_BEFORE);
    let mut measures = Measures::default();
    measures.add(
        "refaults_per_1000",
        1000.0 * refaults as f64 / touches as f64,
    );
    Ok(measures)
}

/// Touches as many pages as it is told, again and again, until the process is killed.
fn touch(link: &mut Link, pages: usize) -> Result<()> {
    link.wait_for_ever()?;
    let mut region = Region::new(pages)?;
    fill::shared(region.bytes_mut(), 0, 1, SHARERS);
    region.advise_mergeable()?;
    link.step()?;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    loop {
        let touches: usize = link.receive()?;
        for _ in 0..touches {
            let draw = rng.next_u64() as usize;
            let among = if draw % HOT == 0 { pages } else { pages / HOT };
            // User Mode Linux does not see who reads.
            let byte = &mut region.page_mut((draw / HOT) % among)[PAGE_SIZE - 1];
            *byte = byte.wrapping_add(1);
        }
        link.step()?;
    }
}
