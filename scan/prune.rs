// SPDX-License-Identifier: GPL-2.0

//! Looking for stale nodes in chains.
//!
//! A search meets the first node of a chain only, so one that has become stale behind it would stay
//! until the scan comes by its last item. Every `stable_node_chains_prune_millisecs` a round over all
//! nodes begins, in the order in which they lie in memory, a few with each batch: so no chain costs
//! more at a time than any other.

#![deny(unsafe_code)]

use crate::{
    ksmd::Ksm,
    mm::ksm_page::ids::NodeId,
    scan::Scanner,
    stable_tree::StableTree, //
};

/// Nodes that are looked at with each batch.
const NODES_AT_ONCE: usize = 64;

/// How far the rounds over all nodes are.
#[derive(Default)]
pub(crate) struct Pruning {
    /// When the last round began, in milliseconds by the clock of the scanner.
    began: u32,
    /// The node that the round under way has come to.
    last: Option<NodeId>,
}

impl Scanner {
    /// Removes stale nodes from chains, if it is time to look for them.
    pub(crate) fn prune_chains(&mut self, ksm: &Ksm) {
        if ksm.stats.stable_node_chains.get() == 0 || !self.is_pruning(ksm) {
            return;
        }
        for _ in 0..NODES_AT_ONCE {
            let next = self.nodes.next_after(self.pruning.last);
            self.pruning.last = next;
            let Some(node) = next else {
                return;
            };
            if StableTree::is_in_chain(&self.nodes, node) && self.is_stale(node) {
                self.remove_stale(ksm, node);
            }
        }
    }

    /// Whether a round is under way; begins one if it is time for it.
    fn is_pruning(&mut self, ksm: &Ksm) -> bool {
        if self.pruning.last.is_some() {
            return true;
        }
        let now = self.now();
        let pause = now.wrapping_sub(self.pruning.began) as usize;
        let is_due = pause >= ksm.tunables.chains_prune_millisecs.get();
        if is_due {
            self.pruning.began = now;
        }
        is_due
    }

    fn is_stale(&self, node: NodeId) -> bool {
        let anchor = self.nodes[node].anchor.as_ref();
        anchor.is_some_and(|anchor| anchor.page().is_err())
    }
}
