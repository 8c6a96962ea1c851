// SPDX-License-Identifier: GPL-2.0

//! Processes that hold advised memory and sleep, however much it is.
//!
//! When a process runs, User Mode Linux needs a mapping of the host for each run of frames in its
//! memory, and merging makes many. So what can be done to the memory from outside is done so.

use std::{fs::OpenOptions, mem, os::unix::fs::FileExt};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use crate::{
    peer::{Link, Peer},
    region::Region,
    PAGE_SIZE,
};

/// See the [module's description](self); killed when dropped.
pub struct Sleeper {
    peer: Peer,
    address: usize,
}

impl Sleeper {
    /// `fill` says what the pages hold.
    pub fn new(pages: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        let mut peer = Peer::fork(|link| {
            link.wait_for_ever()?;
            let mut region = Region::new(pages)?;
            // User Mode Linux needs a system call of the host for each page that a program touches
            // first, but not for those that are there already.
            region.populate()?;
            fill(region.bytes_mut());
            region.advise_mergeable()?;
            link.send(region.address())?;
            unmap_when_told(link, region)
        })?;
        let address = peer.receive()?;
        Ok(Self { peer, address })
    }

    /// Has it unmap the first `pages` pages of what it still has. It runs for that.
    pub fn unmap(&mut self, pages: usize) -> Result<()> {
        self.peer.send(pages)?;
        self.peer.await_step()
    }

    /// Writes a number to the beginning of page `index`, while the process sleeps.
    pub fn write_to(&self, index: usize, number: usize) -> Result<()> {
        let path = format!("/proc/{}/mem", self.peer.pid());
        let memory = OpenOptions::new().write(true).open(&path);
        let address = self.address + index * PAGE_SIZE;
        memory
            .and_then(|memory| memory.write_all_at(&number.to_ne_bytes(), address as u64))
            .with_context(|| format!("cannot write to {path}"))
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.peer.pid()
    }

    /// Ends it.
    pub fn kill(self) -> Result<()> {
        self.peer.kill()
    }
}

/// Sleeps between the orders of [`Sleeper::unmap`], until it is killed.
fn unmap_when_told(link: &mut Link, mut region: Region) -> Result<()> {
    loop {
        let rest = region.split_off(link.receive()?)?;
        drop(mem::replace(&mut region, rest));
        link.step()?;
    }
}
