// SPDX-License-Identifier: GPL-2.0

//! Which domain each process is in, and that KSM lets nobody share across them.

use std::collections::BTreeSet;

use anyhow::{ensure, Result};
use ksm_tests::{domain, ksm, pagemap};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::stage::{Member, Stage};

/// Where a process moves to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Move {
    Number(u8),
    Private,
}

/// Which numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rule {
    Shared,
    Marked,
    Private,
}

impl Rule {
    fn word(self) -> &'static str {
        match self {
            Rule::Shared => "shared",
            Rule::Marked => "marked",
            Rule::Private => "private",
        }
    }
}

impl Stage<'_> {
    /// Passed over by a KSM that has no domains.
    pub fn move_to_domain(&mut self, process: u8, to: Move) -> Result<()> {
        let member = self.member(process)?;
        if !ksm::is_ours() {
            return Ok(());
        }
        let pid = member.process.pid();
        member.domain = match to {
            Move::Number(number) => {
                domain::set(pid, number)?;
                number.into()
            }
            Move::Private => {
                domain::set(pid, "private")?;
                let number = domain::of(pid)?;
                ensure!(number > u32::MAX.into(), "{number} is no private domain");
                number
            }
        };
        Ok(())
    }

    /// Passed over by a KSM that has no domains.
    pub fn set_domain_rule(&mut self, rule: Rule) -> Result<()> {
        if ksm::is_ours() {
            domain::set_rule(rule.word())?;
            self.rule = rule;
        }
        Ok(())
    }

    /// Whether each process is where it should be, and shares KSM pages with its own domain alone.
    ///
    /// All processes come from one program, so those that nobody has marked are together, whether such
    /// programs are domains of their own or not.
    pub fn check_domains(&self) -> Result<()> {
        if self.members.iter().all(|member| member.domain == 0) {
            return Ok(());
        }
        for Member {
            process, domain, ..
        } in &self.members
        {
            let seen = domain::of(process.pid())?;
            ensure!(seen == *domain, "process {} is in {seen}", process.pid());
        }
        match self.rule {
            Rule::Shared => Ok(()),
            Rule::Marked | Rule::Private => ensure_apart(&self.residents()),
        }
    }

    /// All processes that may share something, with their domains.
    fn residents(&self) -> Vec<(Pid, u64)> {
        let ancestors = self.machine.fleet.ancestors().map(|pid| (pid, 0));
        let members = self.members.iter();
        let members = members.map(|member| (member.process.pid(), member.domain));
        members.chain(ancestors).collect()
    }
}

/// Fails if two of these have a KSM page in common, and are of different domains.
///
/// Frames change hands while they are looked at, but only those that are shared stay where they are.
fn ensure_apart(residents: &[(Pid, u64)]) -> Result<()> {
    let shared = shared_across(residents)?;
    if !shared.is_empty() {
        let still: Vec<_> = shared
            .intersection(&shared_across(residents)?)
            .copied()
            .collect();
        ensure!(still.is_empty(), "SHARED ACROSS DOMAINS: {still:?}");
    }
    Ok(())
}

/// A KSM page that two processes have, which are of different domains.
type Breach = (u64, [Pid; 2], [u64; 2]);

fn shared_across(residents: &[(Pid, u64)]) -> Result<BTreeSet<Breach>> {
    let frames = residents.iter().map(|(pid, _)| frames_of(*pid));
    let frames: Vec<_> = frames.collect::<Result<_>>()?;
    let mut breaches = BTreeSet::new();
    for (index, &(left, domain)) in residents.iter().enumerate() {
        for (other, &(right, others)) in residents.iter().enumerate().skip(index + 1) {
            if domain == others {
                continue;
            }
            for &frame in frames[index].intersection(&frames[other]) {
                // Pages that are the same since a fork are none of KSM's.
                if pagemap::is_ksm(frame)? {
                    breaches.insert((frame, [left, right], [domain, others]));
                }
            }
        }
    }
    Ok(breaches)
}

fn frames_of(process: Pid) -> Result<BTreeSet<u64>> {
    pagemap::anonymous_frames_of(process.as_raw().try_into()?)
}
