// SPDX-License-Identifier: GPL-2.0

//! Rows of the table.

use std::{fmt::Debug, io};

use anyhow::Result;
use ksm_tests::peer::Peer;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// What was asked for, and what came of it.
#[derive(Serialize, Deserialize)]
pub struct Row {
    pub request: String,
    pub outcome: String,
}

/// The name of an error, or the value.
pub fn show<T: Debug>(result: Result<T, Errno>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(errno) => format!("{errno:?}"),
    }
}

/// The same, for what the standard library does.
pub fn show_io<T: Debug>(result: io::Result<T>) -> String {
    show(result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default())))
}

/// Makes rows in a process of their own, which may be left in any state.
pub fn in_new_process(make: impl FnOnce() -> Result<Vec<Row>>) -> Result<Vec<Row>> {
    let mut peer = Peer::fork(|link| {
        let rows = make()?;
        link.send(rows)
    })?;
    let rows = peer.receive()?;
    peer.join()?;
    Ok(rows)
}
