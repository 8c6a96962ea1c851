// SPDX-License-Identifier: GPL-2.0

//! Actors that share state, let loose on each other beside the scanner.

use std::time::Duration;

use anyhow::{Context, Result};
use ksm_tests::{
    folio_size::{self, HUGE_PAGE_KIB},
    ksm::{self, Run},
    memory_block::Block,
    module,
    peer::Peer,
    swap,
};
use serde::{Deserialize, Serialize};

use crate::{
    actor::{self, Make},
    actors::{
        advising_all, collapsing, exiting, migrating, moving, offlining, reading_direct,
        reclaiming, reloading, sorting, tuning, unadvising, unmapping, unmerging, writing,
    },
    scan,
};

/// What a kernel must have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    Nothing,
    /// A block device of compressed memory.
    Zram,
    /// Memory that can go offline.
    MovableBlocks,
    /// KSM that can be unloaded.
    Module,
    HugePages,
    Domains,
}

impl Needs {
    /// Why this kernel cannot run a pair with these needs.
    fn missing(self) -> Result<Option<&'static str>> {
        Ok(match self {
            Self::Nothing => None,
            Self::Zram => (!swap::is_available()).then_some("this kernel has no zram"),
            Self::MovableBlocks => Block::all_movable()?
                .is_empty()
                .then_some("there is no movable block of memory"),
            Self::Module => module::file()
                .is_none()
                .then_some("this kernel has KSM built in"),
            Self::Domains => (!ksm::is_ours()).then_some("this KSM has no domains"),
            Self::HugePages => {
                (!folio_size::is_there(HUGE_PAGE_KIB)).then_some("this kernel has no huge pages")
            }
        })
    }
}

/// Actors that share state with each other and with the scan, which always runs.
pub struct Pair {
    pub name: &'static str,
    pub actors: &'static [Make],
    pub needs: Needs,
}

const fn pair(name: &'static str, actors: &'static [Make]) -> Pair {
    Pair {
        name,
        actors,
        needs: Needs::Nothing,
    }
}

const fn needing(needs: Needs, pair: Pair) -> Pair {
    Pair { needs, ..pair }
}

/// All of them.
pub const PAIRS: &[Pair] = &[
    pair("scan/exit", &[exiting, exiting, writing]),
    pair("scan/munmap", &[unmapping, unmapping, writing]),
    pair("merge/write", &[writing, writing, writing]),
    needing(
        Needs::Zram,
        pair("merge/direct-read", &[reading_direct, writing]),
    ),
    needing(
        Needs::Zram,
        pair("rmap-walk/unmerge", &[reclaiming, unadvising, unmapping]),
    ),
    pair("migration/merge", &[migrating, migrating, writing]),
    pair("migration/unmerge", &[migrating, unadvising, unmerging]),
    needing(
        Needs::MovableBlocks,
        pair("hot-remove/scan", &[offlining, unadvising, writing]),
    ),
    needing(
        Needs::Module,
        pair("rmmod/madvise", &[reloading, unadvising, advising_all]),
    ),
    pair("run-2/madvise", &[unmerging, unadvising, advising_all]),
    needing(
        Needs::HugePages,
        pair("split/collapse", &[collapsing, collapsing, writing]),
    ),
    needing(
        Needs::HugePages,
        pair("split/tuning", &[collapsing, tuning, writing]),
    ),
    needing(
        Needs::Domains,
        pair("domain/merge", &[moving, moving, moving, writing]),
    ),
    needing(
        Needs::Domains,
        pair("domain/rules", &[moving, sorting, exiting, writing]),
    ),
    pair("sysfs/scan", &[tuning, tuning, writing, exiting]),
];

/// How a pair has ended.
#[derive(Serialize, Deserialize)]
pub enum Outcome {
    Raced {
        /// Rounds of each actor.
        rounds: Vec<u64>,
        /// The most pages that were saved at a time.
        sharing: u64,
    },
    Skipped(String),
}

impl Pair {
    /// Lets all actors work for so long; fails unless every byte is right.
    pub fn run(&self, seed: u64, length: Duration) -> Result<Outcome> {
        if let Some(reason) = self.needs.missing()? {
            return Ok(Outcome::Skipped(reason.into()));
        }
        ksm::set_run(Run::Unmerge)?;
        scan::prepare(seed)?;
        ksm::set_run(Run::Merge)?;
        let mut peers = (0..)
            .zip(self.actors)
            .map(|(number, make)| actor::start(*make, seed + number, length))
            .collect::<Result<Vec<_>>>()?;
        peers.iter_mut().try_for_each(Peer::receive::<()>)?;
        peers.iter_mut().try_for_each(Peer::step)?;
        let (rounds, sharing) = scan::watched(|| {
            let rounds = peers.iter_mut().map(Peer::receive);
            rounds.collect::<Result<Vec<u64>>>()
        });
        let rounds = rounds?;
        peers.iter_mut().try_for_each(Peer::step)?;
        for (number, peer) in peers.into_iter().enumerate() {
            peer.join().with_context(|| format!("actor {number}"))?;
        }
        Ok(Outcome::Raced { rounds, sharing })
    }
}
