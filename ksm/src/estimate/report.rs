// SPDX-License-Identifier: GPL-2.0

//! The memory that merging would save, in all and for each process.

use serde::Serialize;

use crate::{
    pairs::{Pair, Pairs},
    processes::Named,
};

use super::{
    collect::Collected,
    contents::{contents, Content},
    cost::{self, ScanSeconds},
};

/// The result. Pages are of 4 KiB.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Pages that KSM could merge.
    pub pages: u64,
    /// Pages that share a frame with others already, by fork or by KSM, beyond the first one.
    pub shared_already: u64,
    /// Pages of memory that merging would free, with `use_zero_pages` 0.
    pub saved: u64,
    /// Pages of memory that `use_zero_pages` 1 would free on top of that.
    pub saved_by_zero_page: u64,
    /// Pages of zeros.
    pub zeros: u64,
    /// Pages with an equal that are part of huge pages, which would be split.
    pub equal_in_huge: u64,
    /// Pages in swap, which were left there.
    pub swapped: u64,
    /// Processes that ended meanwhile.
    pub ended: usize,
    /// CPU time of a scan.
    pub scan_seconds: ScanSeconds,
    /// For each process, those that save most first.
    pub processes: Vec<OfProcess>,
    /// For pairs of processes that have contents in common, those that have most first.
    pub pairs: Vec<Pair>,
}

/// The part of a process.
#[derive(Debug, Serialize)]
pub struct OfProcess {
    /// The process.
    #[serde(flatten)]
    pub process: Named,
    /// Its pages.
    pub pages: u64,
    /// Its pages of zeros.
    pub zeros: u64,
    /// Its share of the saved pages: those of each content are divided among all that have it.
    pub saved: f64,
}

/// Works out the report; `limit` mappings can share a frame.
pub fn report(mut collected: Collected, processes: &[Named], limit: u64) -> Report {
    let mut sums = Sums::new(processes.len());
    for content in contents(&mut collected.pages) {
        sums.add(&content, limit);
    }
    let zeros: u64 = collected.zeros.iter().sum();
    let without_equal = sums.without_equal;
    let pages = collected.pages.len() as u64;
    Report {
        pages,
        shared_already: pages - sums.frames,
        saved: sums.frames - sums.needed,
        saved_by_zero_page: zeros.min(zeros.div_ceil(limit)),
        zeros,
        equal_in_huge: sums.equal_in_huge,
        swapped: collected.swapped,
        ended: collected.ended,
        scan_seconds: cost::scan(without_equal, pages - without_equal),
        pairs: sums.pairs.sorted(processes),
        processes: sums.of_processes(processes, &collected.zeros),
    }
}

struct Sums {
    frames: u64,
    needed: u64,
    without_equal: u64,
    equal_in_huge: u64,
    pages: Vec<u64>,
    saved: Vec<f64>,
    pairs: Pairs,
}

impl Sums {
    fn new(processes: usize) -> Self {
        Self {
            frames: 0,
            needed: 0,
            without_equal: 0,
            equal_in_huge: 0,
            pages: vec![0; processes],
            saved: vec![0.0; processes],
            pairs: Pairs::default(),
        }
    }

    fn add(&mut self, content: &Content<'_>, limit: u64) {
        let (frames, needed) = (content.frames(), content.frames_needed(limit));
        self.frames += frames;
        self.needed += needed;
        let share = (frames - needed) as f64 / content.pages.len() as f64;
        for page in content.pages {
            self.pages[page.process()] += 1;
            self.saved[page.process()] += share;
        }
        match content.pages {
            [_] => self.without_equal += 1,
            pages => {
                self.equal_in_huge += pages.iter().filter(|page| page.is_huge()).count() as u64;
                self.pairs.add(pages.iter().map(|page| page.process()));
            }
        }
    }

    fn of_processes(self, processes: &[Named], zeros: &[u64]) -> Vec<OfProcess> {
        let numbers = self.pages.into_iter().zip(self.saved).zip(zeros);
        let of_processes =
            processes
                .iter()
                .zip(numbers)
                .map(|(process, ((pages, saved), zeros))| OfProcess {
                    process: process.clone(),
                    pages,
                    zeros: *zeros,
                    saved,
                });
        let mut of_processes: Vec<OfProcess> = of_processes.collect();
        of_processes.sort_by(|one, other| other.saved.total_cmp(&one.saved));
        of_processes
    }
}

#[cfg(test)]
mod tests {
    use super::super::Seen;
    use super::*;

    fn process(pid: i32) -> Named {
        Named {
            pid,
            name: format!("p{pid}"),
            group: None,
            domain: None,
        }
    }

    #[test]
    fn two_processes_that_share() {
        let (zero, alone, common) = (1, 2, 3);
        let pages = vec![
            Seen::new(common, 10, 0, true),
            Seen::new(common, 11, 1, false),
            Seen::new(common, 12, 1, false),
            Seen::new(alone, 13, 0, false),
            Seen::new(zero, 14, 0, false),
            Seen::new(zero, 15, 0, false),
        ];
        let collected = Collected {
            pages,
            zeros: vec![2, 0],
            ..Collected::default()
        };
        let report = report(collected, &[process(7), process(8)], 256);
        assert_eq!(
            (report.pages, report.saved, report.shared_already),
            (6, 3, 0)
        );
        assert_eq!(
            (
                report.zeros,
                report.saved_by_zero_page,
                report.equal_in_huge
            ),
            (2, 1, 1)
        );
        let first = &report.processes[0];
        assert_eq!((first.process.pid, first.pages, first.zeros), (7, 4, 2));
        assert!((first.saved - (1.0 + 2.0 / 3.0)).abs() < 1e-9);
        let pair = &report.pairs[0];
        assert_eq!(
            (pair.one, pair.other, pair.common, report.pairs.len()),
            (7, 8, 1, 1)
        );
    }
}
