// SPDX-License-Identifier: GPL-2.0

//! The processes: a victim, and an attacker's, each of which holds one page.

use anyhow::{Context, Result};
use ksm_tests::{
    pagemap, pattern,
    peer::{Link, Peer},
    region::Region,
    PAGE_SIZE,
};
use nix::unistd::{setgid, setuid, Gid, Pid, Uid};
use serde::{Deserialize, Serialize};

use crate::{
    channel::{ask, Channel, PROBED},
    clock,
};

/// `nobody` of Debian.
const NOBODY: u32 = 65534;

#[derive(Serialize, Deserialize)]
enum Request {
    /// Write the page of that number.
    Hold(u64),
    /// Read it.
    Read,
    /// Take it out of the caches.
    Flush,
    Ask(Channel),
    End,
}

/// A process with one page that KSM may merge, seen from outside.
pub struct Actor {
    peer: Peer,
    address: usize,
}

impl Actor {
    /// Starts it; it has the rights of nobody.
    pub fn start() -> Result<Self> {
        let mut peer = Peer::fork(act)?;
        let address = peer.receive()?;
        Ok(Self { peer, address })
    }

    pub fn pid(&self) -> Pid {
        self.peer.pid()
    }

    /// The frame of its page.
    pub fn frame(&self) -> Result<u64> {
        let range = self.address..self.address + PAGE_SIZE;
        let frames = pagemap::frames_of(self.pid().as_raw().try_into()?, &range)?;
        frames[0].context("its page is not in memory")
    }

    /// Lets its page be the one of that number.
    pub fn hold(&mut self, page: u64) -> Result<()> {
        self.request(Request::Hold(page)).map(drop)
    }

    pub fn read(&mut self) -> Result<()> {
        self.request(Request::Read).map(drop)
    }

    pub fn flush(&mut self) -> Result<()> {
        self.request(Request::Flush).map(drop)
    }

    pub fn ask(&mut self, channel: Channel) -> Result<i64> {
        self.request(Request::Ask(channel))
    }

    pub fn end(mut self) -> Result<()> {
        self.peer.send(Request::End)?;
        self.peer.join()
    }

    fn request(&mut self, request: Request) -> Result<i64> {
        self.peer.send(request)?;
        self.peer.receive()
    }
}

/// What is in the process.
fn act(link: &mut Link) -> Result<()> {
    link.wait_for_ever()?;
    become_nobody()?;
    let mut region = Region::mergeable(&[0; PAGE_SIZE])?;
    link.send(region.address())?;
    loop {
        let answer = match link.receive()? {
            Request::Hold(page) => {
                let content = pattern::page(page, 0);
                region.bytes_mut().copy_from_slice(&content);
                0
            }
            Request::Read => {
                clock::read(&region.bytes()[PROBED]);
                0
            }
            Request::Flush => {
                clock::flush(&region.bytes()[PROBED]);
                0
            }
            Request::Ask(channel) => ask(channel, &mut region)?,
            Request::End => return Ok(()),
        };
        link.send(answer)?;
    }
}

fn become_nobody() -> Result<()> {
    setgid(Gid::from_raw(NOBODY)).context("setgid")?;
    setuid(Uid::from_raw(NOBODY)).context("setuid")?;
    // So that its files in /proc are its own.
    nix::sys::prctl::set_dumpable(true).context("PR_SET_DUMPABLE")
}
