// SPDX-License-Identifier: GPL-2.0

//! Reads the memory of processes, and hashes its pages.
//!
//! Only pages that a process has at hand are read, so nothing is allocated or fetched from swap. The process is
//! not stopped.

use std::{fs::File, ops::Range, os::unix::fs::FileExt, thread, time::Instant};

use anyhow::{Context, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::pages::{
    chunks,
    frames::FrameFlags,
    mapping::{mappings, PageMap},
    PAGE_SIZE,
};

use super::Seen;

/// Pages that are read together.
const CHUNK: u64 = 512;

/// Which mappings are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Those that a process has advised KSM to merge.
    Advised,
    /// All that KSM could merge with advice.
    Private,
}

/// The pages that were read.
#[derive(Default)]
pub struct Collected {
    /// All pages.
    pub pages: Vec<Seen>,
    /// The number of pages of zeros among them, for each process.
    pub zeros: Vec<u64>,
    /// Pages that processes have in swap.
    pub swapped: u64,
    /// Processes that ended before all of their memory was read.
    pub ended: usize,
}

/// Reads memory, at a limited pace.
pub struct Collector {
    collected: Collected,
    /// The flags of frames, where the kernel shows them.
    flags: Option<FrameFlags>,
    scope: Scope,
    pace: Pace,
    zeros: u64,
    buffer: Vec<u8>,
}

impl Collector {
    /// Takes at most `percent` of a CPU.
    pub fn new(scope: Scope, percent: u32) -> Self {
        Self {
            collected: Collected::default(),
            flags: FrameFlags::open().ok(),
            scope,
            pace: Pace::new(percent),
            zeros: xxh3_64(&[0; PAGE_SIZE as usize]),
            buffer: vec![0; (CHUNK * PAGE_SIZE) as usize],
        }
    }

    /// The addresses of a process that are to be read.
    ///
    /// # Errors
    ///
    /// The process has ended, or only root may look.
    pub fn ranges(&self, pid: i32) -> Result<Vec<Range<u64>>> {
        let wanted = mappings(pid)?
            .into_iter()
            .filter(|mapping| match self.scope {
                Scope::Advised => mapping.is_advised,
                Scope::Private => mapping.is_private,
            });
        Ok(wanted.map(|mapping| mapping.addresses).collect())
    }

    /// Reads the ranges of one process; calls `progress` with the number of bytes that are done, again and again.
    ///
    /// # Errors
    ///
    /// Only root may look. A process that ends meanwhile is no error.
    pub fn read(
        &mut self,
        pid: i32,
        ranges: &[Range<u64>],
        mut progress: impl FnMut(u64),
    ) -> Result<()> {
        let path = format!("/proc/{pid}/mem");
        let memory = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let mut map = PageMap::open(pid)?;
        // From here on it has a place in the list of all.
        self.collected.zeros.push(0);
        for range in ranges {
            for chunk in chunks(range, CHUNK) {
                if self.read_chunk(&memory, &mut map, &chunk).is_err() {
                    self.collected.ended += 1;
                    return Ok(());
                }
                progress(chunk.end - chunk.start);
                self.pace.rest();
            }
        }
        Ok(())
    }

    /// All that was read.
    pub fn finish(self) -> Collected {
        self.collected
    }

    fn read_chunk(
        &mut self,
        memory: &File,
        map: &mut PageMap,
        chunk: &Range<u64>,
    ) -> std::io::Result<()> {
        let mut run: Vec<(u64, Option<u64>)> = Vec::new();
        for (address, page) in map.read(chunk)? {
            self.collected.swapped += u64::from(page.is_swapped());
            if !page.is_present() || page.is_of_file() {
                continue;
            }
            let follows = run
                .last()
                .is_some_and(|(last, _)| last + PAGE_SIZE == address);
            if !follows {
                self.read_run(memory, &run)?;
                run.clear();
            }
            run.push((address, page.frame()));
        }
        self.read_run(memory, &run)
    }

    /// Reads pages that stand side by side.
    fn read_run(&mut self, memory: &File, run: &[(u64, Option<u64>)]) -> std::io::Result<()> {
        let Some((start, _)) = run.first() else {
            return Ok(());
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let wanted = &mut buffer[..run.len() * PAGE_SIZE as usize];
        // Part of it may have been unmapped a moment ago.
        let read = memory.read_at(wanted, *start);
        if let Ok(read) = read {
            for ((_, frame), content) in run
                .iter()
                .zip(wanted[..read].chunks_exact(PAGE_SIZE as usize))
            {
                self.note(content, *frame);
            }
        }
        self.buffer = buffer;
        match read {
            // The address space is gone.
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            // The pages are gone, and the process is not.
            _ => Ok(()),
        }
    }

    fn note(&mut self, content: &[u8], frame: Option<u64>) {
        let process = self.collected.zeros.len() - 1;
        let flags = match (&mut self.flags, frame) {
            (Some(flags), Some(frame)) => flags.of(frame),
            _ => Default::default(),
        };
        if flags.is_zero_page() {
            return;
        }
        let hash = xxh3_64(content);
        if hash == self.zeros {
            self.collected.zeros[process] += 1;
        }
        let frame = frame.unwrap_or(self.collected.pages.len() as u64) as u32;
        self.collected
            .pages
            .push(Seen::new(hash, frame, process, flags.is_huge()));
    }
}

/// Limits the share of a CPU that a loop takes.
struct Pace {
    percent: u32,
    began: Instant,
}

impl Pace {
    fn new(percent: u32) -> Self {
        Self {
            percent,
            began: Instant::now(),
        }
    }

    /// Sleeps for as long as the work since the last rest demands.
    fn rest(&mut self) {
        let pause = self.began.elapsed() * (100 - self.percent) / self.percent;
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        self.began = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn work_is_followed_by_rest() {
        let mut pace = Pace::new(25);
        let (began, work) = (Instant::now(), Duration::from_millis(20));
        thread::sleep(work);
        pace.rest();
        assert!(began.elapsed() >= 4 * work);
    }

    #[test]
    fn own_memory_is_read() {
        let memory: Vec<u8> = (0..1 << 20).map(|byte| (byte >> 12) as u8 | 1).collect();
        let start = (memory.as_ptr() as u64).next_multiple_of(PAGE_SIZE);
        let range = start..start + 32 * PAGE_SIZE;
        let mut collector = Collector::new(Scope::Private, 100);
        let mut bytes = 0;
        let pid = std::process::id() as i32;
        collector.read(pid, &[range], |done| bytes += done).unwrap();
        let collected = collector.finish();
        assert_eq!(bytes, 32 * PAGE_SIZE);
        assert_eq!((collected.pages.len(), collected.ended), (32, 0));
        // Neighbours differ in one byte of each page, but for every second pair.
        let contents: HashSet<_> = collected.pages.iter().map(|page| page.content).collect();
        assert!(contents.len() > 16);
    }
}
