// SPDX-License-Identifier: GPL-2.0

//! Looking for stale nodes in chains.
//!
//! A search meets the first node of a chain only, so one that has become stale behind it would stay
//! until the scan comes by its last item. Every `stable_node_chains_prune_millisecs` a round over all
//! nodes begins, in the order in which they lie in memory, a few with each batch: so no chain costs
//! more at a time than any other.

#![deny(unsafe_code)]

use crate::{
    mm::ksm_page::ids::NodeId,
    policy::shared::Shared,
    records::Records, //
};

/// Nodes that are looked at with each batch.
const NODES_AT_ONCE: usize = 64;

/// How far the rounds over all nodes are.
#[derive(Default)]
pub(crate) struct Pruning {
    /// When the last round began, in milliseconds.
    began: u32,
    /// The node that the round under way has come to.
    last: Option<NodeId>,
}

impl Pruning {
    /// Removes stale nodes from chains, if it is time to look for them; `now` says what time it is in
    /// milliseconds, round and round.
    pub(crate) fn prune(
        &mut self,
        shared: &Shared,
        records: &mut Records,
        now: impl FnOnce() -> u32,
    ) {
        if shared.counters.chains() == 0 || !self.is_under_way(shared, now) {
            return;
        }
        for _ in 0..NODES_AT_ONCE {
            self.last = records.prune_next(self.last);
            if self.last.is_none() {
                return;
            }
        }
    }

    /// Whether a round is under way; begins one if it is time for it.
    fn is_under_way(&mut self, shared: &Shared, now: impl FnOnce() -> u32) -> bool {
        if self.last.is_some() {
            return true;
        }
        let now = now();
        let pause = now.wrapping_sub(self.began) as usize;
        let is_due = pause >= shared.tunables.chains_prune_millisecs.get();
        if is_due {
            self.began = now;
        }
        is_due
    }
}
