// SPDX-License-Identifier: GPL-2.0

//! The processes as the one that drives them sees them.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::AsFd,
        unix::{fs::FileExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process,
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    peer::{Link, Peer},
    wait,
};
use nix::{
    poll::{poll, PollFd, PollFlags, PollTimeout},
    sys::signal::{kill, Signal},
    unistd::Pid,
};

use crate::{
    board::Board,
    worker::{self, Request},
};

/// A process that does what it is told; killed when dropped.
pub struct Process {
    pid: Pid,
    link: Link,
}

impl Process {
    /// Tells it to do something, and waits until it is done.
    pub fn ask(&mut self, request: &Request) -> Result<usize> {
        self.tell(request)?;
        self.answer()
    }

    /// Tells it to do something.
    pub fn tell(&mut self, request: &Request) -> Result<()> {
        let pid = self.pid;
        self.link
            .send(request)
            .with_context(|| format!("process {pid}"))
    }

    /// Waits until it has done what it was told.
    pub fn answer(&mut self) -> Result<usize> {
        let pid = self.pid;
        self.link
            .receive()
            .with_context(|| format!("process {pid}"))
    }

    /// Does `something` in the middle of what it is told.
    pub fn ask_during(
        &mut self,
        request: &Request,
        something: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.tell(request)?;
        self.link.await_step()?;
        something()?;
        self.link.step()?;
        self.answer().map(drop)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    fn memory(&self, options: &OpenOptions) -> Result<File> {
        let path = format!("/proc/{}/mem", self.pid);
        options
            .open(&path)
            .with_context(|| format!("cannot open {path}"))
    }

    /// Reads its memory without its help.
    pub fn read_memory(&self, address: usize, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.memory(OpenOptions::new().read(true))?
            .read_exact_at(&mut bytes, address as u64)
            .context("reading the memory of another process")?;
        Ok(bytes)
    }

    /// Writes to its memory without its help.
    pub fn write_memory(&self, address: usize, bytes: &[u8]) -> Result<()> {
        self.memory(OpenOptions::new().write(true))?
            .write_all_at(bytes, address as u64)
            .context("writing to the memory of another process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and nobody else gets its number before we look again.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// Where processes come from.
pub struct Fleet {
    ancestor: Peer,
    listener: UnixListener,
    socket: PathBuf,
}

impl Fleet {
    pub fn new(board: &Board) -> Result<Self> {
        let socket = std::env::temp_dir().join(format!("ksm-property-{}.socket", process::id()));
        let listener = UnixListener::bind(&socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        Ok(Self {
            ancestor: worker::ancestor(board, socket.clone())?,
            listener,
            socket,
        })
    }

    /// Those that all processes come from. What has not been written since is of the same frames:
    /// if all memory of one process is mergeable, memory of these becomes KSM pages as well.
    pub fn ancestors(&self) -> [Pid; 2] {
        [Pid::this(), self.ancestor.pid()]
    }

    /// A new process without areas.
    pub fn start(&mut self) -> Result<Process> {
        self.ancestor.send(Request::Fork)?;
        self.ancestor.receive::<usize>()?;
        self.accept()
    }

    /// A child of that process, with all that it has.
    pub fn fork(&self, parent: &mut Process) -> Result<Process> {
        parent.ask(&Request::Fork)?;
        self.accept()
    }

    fn accept(&self) -> Result<Process> {
        let mut waiting = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(wait::STALL_LIMIT)?;
        ensure!(poll(&mut waiting, limit)? > 0, "a new process says nothing");
        let mut link = Link::new(self.listener.accept()?.0)?;
        let pid = link.receive::<i32>().context("a new process")?;
        Ok(Process {
            pid: Pid::from_raw(pid),
            link,
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A socket more in memory does no harm.
        let _ = fs::remove_file(&self.socket);
    }
}

/// Waits until none of these processes is left.
pub fn await_ends(pids: &[Pid]) -> Result<()> {
    wait::until("the ends of processes", || {
        let left = pids
            .iter()
            .any(|pid| Path::new(&format!("/proc/{pid}")).exists());
        Ok((!left).then_some(()))
    })
}
