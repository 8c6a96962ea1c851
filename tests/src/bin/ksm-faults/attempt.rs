// SPDX-License-Identifier: GPL-2.0

//! One call of an entry during which one allocation fails.

use anyhow::{ensure, Context, Result};
use ksm_tests::peer::{Link, Peer};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// As if nothing had failed.
    Done,
    /// With this error number.
    Refused(i32),
    /// With the end of the process: an exec beyond its point of no return.
    Killed,
}

/// A call, and whether an allocation failed in it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Attempt {
    pub ending: Ending,
    pub went_off: bool,
}

impl Attempt {
    /// Fails if `result` is an error that is none of those `allowed`, or one without a cause.
    pub fn new<T>(result: &nix::Result<T>, went_off: bool, allowed: &[Errno]) -> Result<Self> {
        let ending = match result {
            Ok(_) => Ending::Done,
            Err(errno) => {
                ensure!(went_off, "{errno}, though no allocation has failed");
                ensure!(allowed.contains(errno), "{errno} is no documented error");
                Ending::Refused(*errno as i32)
            }
        };
        Ok(Self { ending, went_off })
    }
}

/// Makes an attempt in a process of its own.
pub fn in_child(body: impl FnOnce(&mut Link) -> Result<Attempt>) -> Result<Attempt> {
    let mut peer = Peer::fork(|link| {
        let attempt = body(link)?;
        link.send(attempt)
    })?;
    let attempt = peer.receive().context("the attempt")?;
    peer.join()?;
    Ok(attempt)
}
