// SPDX-License-Identifier: GPL-2.0

//! What all sequences of a run share.

use anyhow::Result;
use ksm_tests::{
    cgroup::Cgroup,
    swap::{self, Swap},
    MIB,
};
use nix::unistd::Pid;

use crate::{board::Board, fleet::Fleet};

/// Room for all that processes map.
const SWAP_BYTES: usize = 64 * MIB;

/// Swap, a group to reclaim from, and processes.
pub struct Machine {
    pub board: Board,
    pub fleet: Fleet,
    pub group: Cgroup,
    _swap: Option<Swap>,
}

impl Machine {
    pub fn new() -> Result<Self> {
        let swap = swap::is_available()
            .then(|| Swap::on(SWAP_BYTES))
            .transpose()?;
        let group = Cgroup::new(&format!("ksm-property-{}", Pid::this()))?;
        // Whatever is forked from here on belongs to it.
        group.add(Pid::this())?;
        let board = Board::new()?;
        Ok(Self {
            fleet: Fleet::new(&board)?,
            board,
            group,
            _swap: swap,
        })
    }
}
