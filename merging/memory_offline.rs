// SPDX-License-Identifier: GPL-2.0

//! Memory that goes offline.
//!
//! Migration moves the KSM pages away. Meanwhile nobody may touch stable nodes that could name
//! memory that is going; and those that still do, when it has gone, are removed unseen.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    ksmd::Ksm,
    mm::hotplug::{
        MemoryEvent,
        MemoryListener,
        OfflineRange, //
    },
    scan::Scanner, //
};

impl MemoryListener for Ksm {
    fn notify(&self, event: MemoryEvent) {
        match event {
            MemoryEvent::GoingOffline => self.begin_offlining(),
            MemoryEvent::Offline(range) => self.end_offlining(Some(&range)),
            MemoryEvent::CancelOffline => self.end_offlining(None),
        }
    }
}

impl Scanner {
    /// Removes the nodes whose pages lay in memory that has gone.
    pub(crate) fn remove_offline_nodes(&mut self, ksm: &Ksm, range: &OfflineRange) {
        let mut next = self.nodes.next_after(None);
        while let Some(node) = next {
            let anchor = self.nodes[node].anchor.as_ref();
            if anchor.is_some_and(|anchor| anchor.forget_offline(range)) {
                self.remove_stale(ksm, node);
            }
            next = self.nodes.next_after(Some(node));
            kthread::cond_resched();
        }
    }
}
