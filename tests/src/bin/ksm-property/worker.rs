// SPDX-License-Identifier: GPL-2.0

//! The processes whose memory is merged: each does what it is told, and forks when it is told to.
//!
//! All of them descend from one that has no areas. A new process connects to a socket that is
//! known from the start, so that its line is its own, and its end can be heard.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{IoSlice, Read},
    os::unix::net::UnixStream,
    path::PathBuf,
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    merge_any, numa, pattern,
    peer::{Link, Peer},
    region::Region,
    PAGE_SIZE,
};
use nix::{
    fcntl::{vmsplice, SpliceFFlags},
    sys::{
        mman::ProtFlags,
        prctl,
        signal::{signal, SigHandler, Signal},
    },
    unistd::{fork, getpid, pipe, ForkResult},
};
use serde::{Deserialize, Serialize};

use crate::{board::Board, model::AreaId};

/// What a process is told. Bytes come by the board; each request is answered by a number.
#[derive(Serialize, Deserialize)]
pub enum Request {
    Map {
        area: AreaId,
        pages: usize,
    },
    /// A map of huge pages, filled from the board.
    MapHuge {
        area: AreaId,
        pages: usize,
    },
    Write {
        area: AreaId,
        at: usize,
        length: usize,
    },
    Verify {
        area: AreaId,
    },
    /// Writes 0, 1, … to the first byte of a page.
    Hammer {
        area: AreaId,
        page: usize,
        times: u8,
    },
    Advise {
        area: AreaId,
        mergeable: bool,
    },
    MergeAny {
        on: bool,
    },
    Move {
        area: AreaId,
    },
    Resize {
        area: AreaId,
        pages: usize,
    },
    Split {
        area: AreaId,
        at: usize,
        rest: AreaId,
    },
    Unmap {
        area: AreaId,
    },
    Discard {
        area: AreaId,
    },
    Collapse {
        area: AreaId,
    },
    PageOut {
        area: AreaId,
    },
    MoveToNode {
        area: AreaId,
        node: u32,
    },
    /// Takes a step on the line while the area is protected, before it answers.
    Protect {
        area: AreaId,
        readable: bool,
    },
    /// Takes a step on the line while the first pages lie in a pipe, before it answers.
    HoldInPipe {
        area: AreaId,
    },
    /// Asks where an area is.
    Address {
        area: AreaId,
    },
    /// The new process answers, with its process id, on a line of its own.
    Fork,
    /// Answers, then ends.
    Exit,
}

/// Half of what a pipe takes.
const PIPE_PAGES: usize = 8;

/// Starts the process that all others descend from.
pub fn ancestor(board: &Board, socket: PathBuf) -> Result<Peer> {
    let board = board.another()?;
    Peer::fork(move |link| {
        // SAFETY: To ignore a signal installs no code of ours.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
        // Nobody has to reap those whose parents have gone.
        prctl::set_child_subreaper(true)?;
        let worker = Worker {
            link,
            board,
            socket,
            areas: BTreeMap::new(),
        };
        worker.serve()
    })
}

struct Worker<'a> {
    link: &'a mut Link,
    board: Board,
    socket: PathBuf,
    areas: BTreeMap<AreaId, Region>,
}

impl Worker<'_> {
    fn serve(mut self) -> Result<()> {
        loop {
            match self.link.receive()? {
                Request::Exit => {
                    self.link.send(0)?;
                    // With all its memory, as most processes end.
                    std::mem::forget(self.areas);
                    return Ok(());
                }
                request => {
                    let answer = self.answer(request)?;
                    self.link.send(answer)?;
                }
            }
        }
    }

    fn answer(&mut self, request: Request) -> Result<usize> {
        match request {
            Request::Fork => return self.fork(),
            Request::Address { area } => return Ok(self.area(area)?.address()),
            Request::Map { area, pages } => self.map(area, Region::new(pages)?),
            Request::MapHuge { area, pages } => {
                let content = self.board.read(pages * PAGE_SIZE)?;
                self.map(area, Region::huge(&content)?);
            }
            Request::Write { area, at, length } => self.write(area, at, length)?,
            Request::Verify { area } => self.verify(area)?,
            Request::Hammer { area, page, times } => hammer(self.area(area)?, page, times)?,
            Request::Advise { area, mergeable } => advise(self.area(area)?, mergeable)?,
            Request::MergeAny { on } => merge_any::set(on).context("PR_SET_MEMORY_MERGE")?,
            Request::Move { area } => self.area(area)?.relocate()?,
            Request::Resize { area, pages } => self.area(area)?.resize(pages)?,
            Request::Split { area, at, rest } => {
                let region = self.area(area)?.split_off(at)?;
                self.map(rest, region);
            }
            Request::Unmap { area } => drop(self.areas.remove(&area)),
            Request::Discard { area } => self.area(area)?.discard()?,
            // Refused for all that is no whole huge page, or is in use.
            Request::Collapse { area } => drop(self.area(area)?.advise_raw(libc::MADV_COLLAPSE)),
            Request::PageOut { area } => self.area(area)?.advise_raw(libc::MADV_PAGEOUT)?,
            Request::MoveToNode { area, node } => drop(numa::move_to(self.area(area)?, node)?),
            Request::Protect { area, readable } => self.protect(area, readable)?,
            Request::HoldInPipe { area } => self.hold_in_pipe(area)?,
            Request::Exit => unreachable!("the loop knows that one"),
        }
        Ok(0)
    }

    fn area(&mut self, id: AreaId) -> Result<&mut Region> {
        self.areas.get_mut(&id).context("there is no such area")
    }

    fn map(&mut self, id: AreaId, region: Region) {
        self.areas.insert(id, region);
    }

    /// Goes on as the parent, or as the child with a line of its own.
    fn fork(&mut self) -> Result<usize> {
        // SAFETY: This process has one thread, so nobody else can hold a lock in the copy.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { .. } => Ok(0),
            ForkResult::Child => {
                // A listener must hear when the parent ends.
                *self.link = Link::new(UnixStream::connect(&self.socket)?)?;
                Ok(getpid().as_raw() as usize)
            }
        }
    }

    fn write(&mut self, area: AreaId, at: usize, length: usize) -> Result<()> {
        let bytes = self.board.read(length)?;
        self.area(area)?.bytes_mut()[at..][..length].copy_from_slice(&bytes);
        Ok(())
    }

    fn verify(&mut self, area: AreaId) -> Result<()> {
        let length = self.area(area)?.len();
        let expected = self.board.read(length)?;
        self.area(area)?.verify(&expected)
    }

    fn protect(&mut self, area: AreaId, readable: bool) -> Result<()> {
        let protection = if readable {
            ProtFlags::PROT_READ
        } else {
            ProtFlags::PROT_NONE
        };
        let Self { link, areas, .. } = self;
        let region = areas.get_mut(&area).context("there is no such area")?;
        region.protected(protection, || {
            link.step()?;
            link.await_step()
        })
    }

    fn hold_in_pipe(&mut self, area: AreaId) -> Result<()> {
        let region = self.area(area)?;
        let bytes = &region.bytes()[..region.pages().min(PIPE_PAGES) * PAGE_SIZE];
        let before = bytes.to_vec();
        let (reader, writer) = pipe().context("pipe")?;
        let length =
            vmsplice(&writer, &[IoSlice::new(bytes)], SpliceFFlags::empty()).context("vmsplice")?;
        ensure!(length == bytes.len(), "the pipe took {length} bytes only");
        drop(writer);
        self.link.step()?;
        self.link.await_step()?;
        let mut drained = Vec::new();
        File::from(reader).read_to_end(&mut drained)?;
        match pattern::first_difference(&drained, &before) {
            None => Ok(()),
            Some(at) => anyhow::bail!("DATA LOST: byte {at} in the pipe is another one"),
        }
    }
}

fn advise(region: &Region, mergeable: bool) -> Result<()> {
    if mergeable {
        region.advise_mergeable()
    } else {
        region.advise_unmergeable()
    }
}

/// Each write must be seen at once, and nothing else must change.
fn hammer(region: &mut Region, page: usize, times: u8) -> Result<()> {
    let mut expected = region.page(page).to_vec();
    for value in 0..times {
        expected[0] = value;
        region.page_mut(page)[0] = value;
        std::thread::yield_now();
        if let Some(at) = pattern::first_difference(region.page(page), &expected) {
            anyhow::bail!("DATA LOST: byte {at} of page {page} after write {value}");
        }
    }
    Ok(())
}
