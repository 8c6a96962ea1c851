// SPDX-License-Identifier: GPL-2.0

//! How much of what could be merged is merged, over time, of memory that changes like that of real
//! processes; at the default settings.
//!
//! Time is counted in full scans: before each, memory changes. What could be saved is known from what
//! the processes write; what is saved, from the frames that their pages lie in. So neither rests on
//! what KSM says of itself.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use anyhow::{Context, Result};
use ksm_tests::{
    pagemap, pattern,
    peer::{Link, Peer},
    region::Region,
    PAGE_SIZE,
};

use crate::{
    mixture::{is_late, Content, Mixture, BEGINNING},
    paced::Paced,
    report::Measures,
    statistics::nanoseconds_each,
    workload::Plan,
};

/// Processes at a time, unless that makes them larger than `MOST_PAGES`: User Mode Linux needs a
/// mapping of its host for each merged page of a process that runs, and may have 65,530 of them.
const PROCESSES: usize = 16;
const MOST_PAGES: usize = 4096;

/// Full scans: pages are used anew once in 100 scans, and processes last for 160.
const SCANS: usize = 240;

/// After so many scans the process that has run longest ends, and another one begins.
const SCANS_BETWEEN_ENDS: usize = 10;

/// The last scans, whose mean is given.
const LAST: usize = 60;

const SEED: u64 = 2;

pub fn mixed(plan: &Plan) -> Result<Measures> {
    let pages = (plan.pages / PROCESSES).min(MOST_PAGES);
    let mut ksmd = Paced::prepare()?;
    let mut crowd = Crowd::new(pages, plan.pages / pages)?;
    let (mut all, mut late) = (Vec::new(), Vec::new());
    let mut time = Duration::ZERO;
    for scan in 1..=SCANS {
        crowd.advance(BEGINNING + scan)?;
        time += ksmd.scan()?;
        all.push(crowd.merged_percent(|_| true)?);
        late.push(crowd.merged_percent(is_late)?);
    }
    let mut measures = Measures::default();
    measures.add("merged_percent", mean(&all));
    measures.add("merged_percent_in_the_end", mean(&all[SCANS - LAST..]));
    measures.add("merged_percent_of_late", mean(&late));
    measures.add(
        "scan_ns_per_page",
        nanoseconds_each(time / SCANS as u32, plan.pages),
    );
    measures.add_curve("merged_percent", all);
    measures.add_curve("merged_percent_of_late", late);
    Ok(measures)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// All processes, the oldest first.
struct Crowd {
    members: VecDeque<Member>,
    size: usize,
    /// Pages of each.
    pages: usize,
    /// Processes that have begun, in all.
    begun: usize,
}

impl Crowd {
    fn new(pages: usize, size: usize) -> Result<Self> {
        let mut crowd = Self {
            members: VecDeque::new(),
            size,
            pages,
            begun: 0,
        };
        while crowd.members.len() < size {
            crowd.begin(BEGINNING)?;
        }
        Ok(crowd)
    }

    fn begin(&mut self, moment: usize) -> Result<()> {
        let mixture = Mixture::new(self.begun, self.pages, self.size, moment);
        self.members.push_back(Member::new(mixture)?);
        self.begun += 1;
        Ok(())
    }

    /// Changes memory as it is between two scans.
    fn advance(&mut self, moment: usize) -> Result<()> {
        if moment % SCANS_BETWEEN_ENDS == 0 {
            if let Some(oldest) = self.members.pop_front() {
                oldest.peer.kill()?;
            }
            self.begin(moment)?;
        }
        self.members
            .iter_mut()
            .try_for_each(|member| member.advance(moment))
    }

    /// Of all pages that need not be there, for all that the processes know, those that are not;
    /// among pages of contents that are `meant`.
    fn merged_percent(&self, meant: impl Fn(Content) -> bool) -> Result<f64> {
        let (mut pages, mut contents, mut frames) = (0, HashSet::new(), HashSet::new());
        for member in &self.members {
            for (content, frame) in member.mixture.contents().iter().zip(member.frames()?) {
                if meant(*content) {
                    pages += 1;
                    contents.insert(*content);
                    frames.insert(frame);
                }
            }
        }
        let (possible, saved) = (pages - contents.len(), pages - frames.len());
        Ok(100.0 * saved as f64 / possible.max(1) as f64)
    }
}

/// A process, and what it holds.
struct Member {
    peer: Peer,
    address: usize,
    mixture: Mixture,
}

impl Member {
    fn new(mut mixture: Mixture) -> Result<Self> {
        let mut peer = Peer::fork(|link| live(link, &mut mixture))?;
        let address = peer.receive()?;
        Ok(Self {
            peer,
            address,
            mixture,
        })
    }

    fn advance(&mut self, moment: usize) -> Result<()> {
        self.peer.send(moment)?;
        self.mixture.advance(moment, |_, _| ());
        self.peer.await_step()
    }

    /// The frame of each page.
    fn frames(&self) -> Result<Vec<u64>> {
        let range = self.address..self.address + self.mixture.contents().len() * PAGE_SIZE;
        let frames = pagemap::frames_of(u32::try_from(self.peer.pid().as_raw())?, &range)?;
        let all = frames.into_iter().collect::<Option<_>>();
        all.context("a page is not there")
    }
}

/// Writes what the process is to hold, moment by moment, until it is killed.
fn live(link: &mut Link, mixture: &mut Mixture) -> Result<()> {
    link.wait_for_ever()?;
    let mut region = Region::new(mixture.contents().len())?;
    region.populate()?;
    for (page, content) in mixture.contents().iter().enumerate() {
        write(&mut region, page, *content);
    }
    region.advise_mergeable()?;
    link.send(region.address())?;
    loop {
        let moment = link.receive()?;
        mixture.advance(moment, |page, content| write(&mut region, page, content));
        link.step()?;
    }
}

fn write(region: &mut Region, page: usize, content: Content) {
    region
        .page_mut(page)
        .copy_from_slice(&pattern::page(SEED, content));
}
