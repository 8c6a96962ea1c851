// SPDX-License-Identifier: GPL-2.0

//! Forked processes that work step by step with the one that forked them.

use std::{
    io::{BufRead, BufReader, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use anyhow::{anyhow, bail, Context, Result};
use nix::{
    poll::{poll, PollFd, PollFlags, PollTimeout},
    sys::{
        signal::{kill, Signal},
        wait::{waitpid, WaitStatus},
    },
    unistd::{fork, ForkResult, Pid},
};
use serde::{de::DeserializeOwned, Serialize};

use crate::wait::STALL_LIMIT;

/// One end of a line between two processes. Each message is a line of JSON: a value, or the
/// text of the error that ended the other process.
pub struct Link {
    stream: BufReader<UnixStream>,
}

impl Link {
    /// Speaks over a socket.
    pub fn new(stream: UnixStream) -> Result<Self> {
        // The other side may have to wait for the scanner before it answers.
        stream.set_read_timeout(Some(2 * STALL_LIMIT))?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// From now on waits for the other side for as long as it takes.
    pub fn wait_for_ever(&mut self) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(None)?)
    }

    /// Speaks over standard input, which must be a socket.
    pub fn from_stdin() -> Result<Self> {
        let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
        Self::new(UnixStream::from(socket))
    }

    /// The socket, to hand it to a program.
    pub fn socket(&self) -> Result<OwnedFd> {
        Ok(self.stream.get_ref().as_fd().try_clone_to_owned()?)
    }

    fn write<T: Serialize>(&mut self, message: &Result<T, String>) -> Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .context("the other process is gone")
    }

    /// Sends a value.
    pub fn send<T: Serialize>(&mut self, value: T) -> Result<()> {
        self.write(&Ok(value))
    }

    /// Sends the reason why no value will come.
    pub fn send_error(&mut self, error: &anyhow::Error) -> Result<()> {
        self.write::<()>(&Err(format!("{error:#}")))
    }

    /// Waits for a value.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        let length = self
            .stream
            .read_line(&mut line)
            .context("no answer from the other process")?;
        if length == 0 {
            bail!("the other process ended without a word");
        }
        let message: Result<T, String> = serde_json::from_str(&line)?;
        message.map_err(|error| anyhow!(error))
    }

    /// Tells the other side that a step is done, or may begin.
    pub fn step(&mut self) -> Result<()> {
        self.send(())
    }

    /// Waits for [`Link::step`] of the other side.
    pub fn await_step(&mut self) -> Result<()> {
        self.receive()
    }

    /// True if a message, or the end of the other side, can be received without waiting.
    pub fn has_message(&self) -> Result<bool> {
        self.has_message_within(Duration::ZERO)
    }

    /// As [`Link::has_message`], but waits so long for one.
    pub fn has_message_within(&self, time: Duration) -> Result<bool> {
        if !self.stream.buffer().is_empty() {
            return Ok(true);
        }
        let time = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut waiting = [PollFd::new(
            self.stream.get_ref().as_fd(),
            PollFlags::POLLIN,
        )];
        let ready = poll(&mut waiting, time).context("poll")?;
        Ok(ready > 0)
    }

    /// Waits until the other side has gone.
    pub fn await_end(&mut self) -> Result<()> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(())
    }
}

/// A forked process; killed and reaped if it is dropped before [`Peer::join`].
pub struct Peer {
    pid: Pid,
    link: Link,
    reaped: bool,
}

impl Peer {
    /// Forks. The new process runs `body` and ends; an error of it reaches this side's next
    /// [`Peer::receive`] or [`Peer::join`].
    pub fn fork(body: impl FnOnce(&mut Link) -> Result<()>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().context("socketpair")?;
        std::io::stdout().flush()?;
        // SAFETY: Our programs start threads only in processes that fork no more, so nobody
        // else can hold a lock in the copy.
        match unsafe { fork() }.context("fork")? {
            ForkResult::Parent { child } => Ok(Self {
                pid: child,
                link: Link::new(ours)?,
                reaped: false,
            }),
            ForkResult::Child => {
                drop(ours);
                std::process::exit(run_child(theirs, body))
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a value.
    pub fn send<T: Serialize>(&mut self, value: T) -> Result<()> {
        let Err(broken) = self.link.send(value) else {
            return Ok(());
        };
        // It is gone, but it may have said why.
        let reason = self.link.receive::<serde_json::Value>().err();
        Err(reason.unwrap_or(broken)).with_context(|| self.name())
    }

    /// Waits for a value from it.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T> {
        self.link.receive().with_context(|| self.name())
    }

    /// Lets it begin its next step.
    pub fn step(&mut self) -> Result<()> {
        self.send(())
    }

    /// Waits until it has done its step.
    pub fn await_step(&mut self) -> Result<()> {
        self.receive()
    }

    /// Lets it do one step and waits until that is done.
    pub fn round(&mut self) -> Result<()> {
        self.step()?;
        self.await_step()
    }

    /// Waits for its end, which must be a good one.
    pub fn join(mut self) -> Result<()> {
        match self.reap()? {
            WaitStatus::Exited(_, 0) => Ok(()),
            WaitStatus::Exited(..) => match self.link.receive::<serde_json::Value>() {
                Err(error) => Err(error).with_context(|| self.name()),
                Ok(_) => bail!("{} failed", self.name()),
            },
            status => bail!("{} ended with {status:?}", self.name()),
        }
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) -> Result<()> {
        kill(self.pid, Signal::SIGKILL).context("kill")?;
        match self.reap()? {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
            status => bail!("{} was not killed, but {status:?}", self.name()),
        }
    }

    fn reap(&mut self) -> Result<WaitStatus> {
        let status = waitpid(self.pid, None).context("waitpid")?;
        self.reaped = true;
        Ok(status)
    }

    fn name(&self) -> String {
        format!("process {}", self.pid)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.reap();
        }
    }
}

/// Runs `body` in the new process and gives its exit status.
fn run_child(stream: UnixStream, body: impl FnOnce(&mut Link) -> Result<()>) -> i32 {
    let Ok(mut link) = Link::new(stream) else {
        return 1;
    };
    let Err(error) = body(&mut link) else {
        return 0;
    };
    // If nobody listens any more, the exit status has to do.
    let _ = link.send_error(&error);
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_errors_pass() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut a, mut b) = (Link::new(a).unwrap(), Link::new(b).unwrap());
        a.send(vec![1, 2]).unwrap();
        assert_eq!(b.receive::<Vec<u8>>().unwrap(), [1, 2]);
        a.send_error(&anyhow!("lost").context("page 3")).unwrap();
        assert_eq!(b.receive::<u8>().unwrap_err().to_string(), "page 3: lost");
        drop(a);
        assert!(b.receive::<u8>().is_err());
    }
}
