// SPDX-License-Identifier: GPL-2.0

//! All workers together.

use std::{collections::HashSet, ops::RangeFrom};

use anyhow::{Context, Result};
use ksm_tests::{corpus::Corpus, peer::Peer};

use crate::{
    options::Options,
    worker::{self, Order},
};

/// The running workers, and how many of their pages are equal.
pub struct Fleet {
    workers: Vec<Peer>,
    files: usize,
    total: u64,
    distinct: u64,
}

impl Fleet {
    /// Starts the workers one after the other and waits until their memory is filled.
    pub fn start(options: &Options) -> Result<Self> {
        let common = options.common_pages() as usize;
        let private = options.private_pages() as usize;
        let corpus = Corpus::of_pages(common)?;
        let mut contents = HashSet::new();
        let mut total = 0;
        let mut workers = Vec::new();
        for seed in 0..options.processes {
            let mut worker =
                Peer::fork(|link| worker::run(link, &corpus, common, private, seed.into()))?;
            let digests: Vec<u64> = worker.receive().context("a worker cannot start")?;
            total += digests.len() as u64;
            contents.extend(digests);
            workers.push(worker);
        }
        Ok(Self {
            workers,
            files: corpus.files(),
            total,
            distinct: contents.len() as u64,
        })
    }

    /// Number of files that the common data comes from.
    pub fn files(&self) -> usize {
        self.files
    }

    /// Pages of all workers.
    pub fn total_pages(&self) -> u64 {
        self.total
    }

    /// Pages that would not be needed if each content were kept once.
    pub fn duplicate_pages(&self) -> u64 {
        self.total - self.distinct
    }

    /// Lets the first worker write, and verify; gives the pages written and the bytes lost.
    pub fn write_from_first(&mut self) -> Result<(u64, u64)> {
        let first = &mut self.workers[0];
        first.send(Order::Write)?;
        let written = first.receive()?;
        first.send(Order::Verify)?;
        Ok((written, first.receive()?))
    }

    /// Lets some workers verify all of their memory; gives the bytes lost.
    pub fn verify(&mut self, which: RangeFrom<usize>) -> Result<u64> {
        let mut lost = 0;
        for worker in &mut self.workers[which] {
            worker.send(Order::Verify)?;
            lost += worker.receive::<u64>()?;
        }
        Ok(lost)
    }

    /// Ends all workers.
    pub fn dismiss(self) -> Result<()> {
        for mut worker in self.workers {
            worker.send(Order::End)?;
            worker.join()?;
        }
        Ok(())
    }
}
