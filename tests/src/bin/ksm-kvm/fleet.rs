// SPDX-License-Identifier: GPL-2.0

//! All guests together.

use std::collections::HashSet;

use anyhow::Result;
use nix::unistd::Pid;

use crate::tenant::{Report, Tenant};

/// Guests that hold the same image.
pub struct Fleet {
    tenants: Vec<Tenant>,
}

impl Fleet {
    /// Starts guests one after the other.
    pub fn start(guests: u64, image: &[u8], own_pages: usize) -> Result<Self> {
        let seeds = 1..=guests;
        let tenants = seeds.map(|seed| Tenant::start(image, own_pages, seed));
        Ok(Self {
            tenants: tenants.collect::<Result<_>>()?,
        })
    }

    /// Number of guests.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// The process of each guest.
    pub fn pids(&self) -> impl Iterator<Item = Pid> + '_ {
        self.tenants.iter().map(Tenant::pid)
    }

    /// Pages of all guests.
    pub fn pages(&self) -> u64 {
        self.tenants
            .iter()
            .map(|tenant| tenant.digests().len() as u64)
            .sum()
    }

    /// Pages that would not be needed if each content were kept once.
    pub fn duplicates(&self) -> u64 {
        let digests = self.tenants.iter().flat_map(Tenant::digests);
        self.pages() - digests.collect::<HashSet<_>>().len() as u64
    }

    /// Kills one in the middle of its work.
    pub fn kill_one(&mut self) -> Result<()> {
        let victim = self.tenants.remove(self.tenants.len() / 2);
        victim.kill()
    }

    /// Lets the first guest write to what all have in common.
    pub fn write_from_first(&mut self) -> Result<()> {
        self.tenants[0].write_image()
    }

    /// Lets every guest write to what all have in common.
    pub fn write_from_all(&mut self) -> Result<()> {
        self.tenants.iter_mut().try_for_each(Tenant::write_image)
    }

    /// Lets every guest verify all of its memory; gives the sums.
    pub fn report(&mut self) -> Result<Report> {
        let mut sum = Report::default();
        for tenant in &mut self.tenants {
            let report = tenant.report()?;
            sum.rounds += report.rounds;
            sum.wrong_bytes += report.wrong_bytes;
            sum.cpu_time += report.cpu_time;
            sum.own_rounds += report.own_rounds;
        }
        Ok(sum)
    }

    /// Ends guests from the middle on, while those that are left verify their memory.
    pub fn end(mut self) -> Result<Report> {
        let mut sum = Report::default();
        while !self.tenants.is_empty() {
            sum.wrong_bytes += self.report()?.wrong_bytes;
            let tenant = self.tenants.remove(self.tenants.len() / 2);
            tenant.end()?;
        }
        Ok(sum)
    }
}
