// SPDX-License-Identifier: GPL-2.0

//! Which processes share pages by KSM: from the frames behind their pages, not from KSM's counters.

use anyhow::Result;
use serde::Serialize;

use crate::{
    pages::{
        chunks,
        frames::FrameFlags,
        mapping::{mappings, PageMap},
    },
    pairs::{Pair, Pairs},
    processes::Named,
};

/// Pages that are looked at together.
const CHUNK: u64 = 4096;

/// Frames that are named one by one.
const LARGEST: usize = 20;

/// A page that KSM shares.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shared {
    frame: u64,
    process: usize,
    address: u64,
}

/// Who shares how much. Pages are of 4 KiB.
#[derive(Debug, Serialize)]
pub struct Sharing {
    /// Frames that KSM shares among the processes that were looked at.
    pub frames: u64,
    /// Pages of the processes that these frames hold.
    pub pages: u64,
    /// For each process, those that share most first.
    pub processes: Vec<OfProcess>,
    /// For pairs of processes, those that share most first.
    pub pairs: Vec<Pair>,
    /// The frames with most pages.
    pub largest: Vec<Frame>,
}

/// The part of a process.
#[derive(Debug, Serialize)]
pub struct OfProcess {
    /// The process.
    #[serde(flatten)]
    pub process: Named,
    /// Its pages that KSM shares.
    pub pages: u64,
    /// Of these, pages whose frames no other of the processes has.
    pub alone: u64,
}

/// One frame.
#[derive(Debug, Serialize)]
pub struct Frame {
    /// Its number.
    pub frame: u64,
    /// The pages that it holds.
    pub pages: u64,
    /// The number of processes that these are of.
    pub processes: u64,
    /// One of these processes, and the address of the page there.
    pub pid: i32,
    /// See `pid`.
    pub address: u64,
}

/// Looks at all pages of the processes.
///
/// A process that ends meanwhile shares nothing.
///
/// # Errors
///
/// Only root may see frames.
pub fn sharing(processes: Vec<Named>) -> Result<Sharing> {
    let mut flags = FrameFlags::open()?;
    let mut shared = Vec::new();
    for (place, process) in processes.iter().enumerate() {
        // An error is that of a process that has ended.
        let _ = collect(process.pid, place, &mut flags, &mut shared);
    }
    shared.sort_unstable();
    Ok(summary(&shared, processes))
}

fn collect(pid: i32, place: usize, flags: &mut FrameFlags, shared: &mut Vec<Shared>) -> Result<()> {
    let mut map = PageMap::open(pid)?;
    for mapping in mappings(pid)?.iter().filter(|mapping| mapping.is_private) {
        for chunk in chunks(&mapping.addresses, CHUNK) {
            for (address, page) in map.read(&chunk)? {
                let frame = page.frame().filter(|frame| flags.of(*frame).is_ksm());
                shared.extend(frame.map(|frame| Shared {
                    frame,
                    process: place,
                    address,
                }));
            }
        }
    }
    Ok(())
}

fn summary(shared: &[Shared], processes: Vec<Named>) -> Sharing {
    let mut pairs = Pairs::default();
    let mut of_processes: Vec<OfProcess> = processes.iter().cloned().map(OfProcess::of).collect();
    let mut frames = Vec::new();
    for pages in shared.chunk_by(|one, other| one.frame == other.frame) {
        let first = pages[0];
        let count = pages
            .chunk_by(|one, other| one.process == other.process)
            .count();
        for page in pages {
            of_processes[page.process].pages += 1;
            of_processes[page.process].alone += u64::from(count == 1);
        }
        pairs.add(pages.iter().map(|page| page.process));
        frames.push(Frame {
            frame: first.frame,
            pages: pages.len() as u64,
            processes: count as u64,
            pid: processes[first.process].pid,
            address: first.address,
        });
    }
    let count = frames.len() as u64;
    frames.sort_by_key(|frame| std::cmp::Reverse(frame.pages));
    frames.truncate(LARGEST);
    of_processes.retain(|process| process.pages > 0);
    of_processes.sort_by_key(|process| std::cmp::Reverse(process.pages));
    Sharing {
        frames: count,
        pages: shared.len() as u64,
        pairs: pairs.sorted(&processes),
        processes: of_processes,
        largest: frames,
    }
}

impl OfProcess {
    fn of(process: Named) -> Self {
        Self {
            process,
            pages: 0,
            alone: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_once_and_pages_each() {
        let processes = [7, 8, 9].map(|pid| Named {
            pid,
            name: String::new(),
            group: None,
            domain: None,
        });
        let page = |frame, process| Shared {
            frame,
            process,
            address: 0x1000 * frame,
        };
        let shared = [page(1, 0), page(1, 1), page(1, 1), page(2, 1), page(2, 1)];
        let found = summary(&shared, processes.into());
        assert_eq!((found.frames, found.pages), (2, 5));
        let of: Vec<_> = found
            .processes
            .iter()
            .map(|of| (of.process.pid, of.pages, of.alone))
            .collect();
        assert_eq!(of, [(8, 4, 2), (7, 1, 0)]);
        assert_eq!((found.pairs[0].common, found.pairs.len()), (1, 1));
        let largest = &found.largest[0];
        assert_eq!(
            (largest.frame, largest.pages, largest.processes, largest.pid),
            (1, 3, 2, 7)
        );
    }
}
