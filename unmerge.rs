// SPDX-License-Identifier: GPL-2.0

//! Giving back private pages for merged ones, range by range.

#![deny(unsafe_code)]

use crate::{
    control::Ksm,
    kthread,
    mm::{
        address_space::{
            user_of,
            ReadLockedMm, //
        },
        unshare::{
            unshare,
            Fault, //
        },
        walk::{
            find_merged,
            MmapLock, //
        }, //
    },
    rmap_item::ListCursor,
    scan::Scanner,
    slots::Which,
    window::{
        self,
        Window, //
    }, //
};
use core::ops::Range;
use kernel::{
    mm::{
        virt::VmaRef,
        MmWithUser, //
    },
    page::PAGE_SIZE,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Rounds of [`Scanner::unmerge_all`]. A round misses what a fork copies behind its back, and pages
/// of a process that is just ending, perhaps by a work item that the scan has left behind.
const ROUNDS: i64 = 8;

/// Replaces all pages in `range` of `vma` that KSM has put there by private copies.
///
/// # Errors
///
/// `ENOMEM` if there is no memory for a copy, `ERESTARTSYS` if a signal is pending. The rest of the
/// range is still merged then, and the caller must not take the advice from the vma.
pub(crate) fn unmerge_range(vma: &VmaRef, range: Range<usize>, lock: MmapLock) -> Result {
    let mut start = range.start;
    loop {
        let found = find_merged(vma, start..range.end, lock);
        let Some(first) = found.as_slice().first() else {
            return Ok(());
        };
        // Faults may have backed out, so the next walk begins where these were found.
        start = *first;
        window::pause(Window::Unmerging);
        for address in found.as_slice() {
            match unshare(vma, *address) {
                Fault::Handled => {}
                Fault::Gone if address == first => start += PAGE_SIZE,
                // It will be the first one soon.
                Fault::Gone => {}
                Fault::NoMemory => return Err(ENOMEM),
            }
        }
        kthread::cond_resched();
        if kthread::signal_pending() {
            return Err(ERESTARTSYS);
        }
    }
}

impl Scanner {
    /// Unmerges every page of every address space, and forgets all that is known of them.
    ///
    /// # Errors
    ///
    /// As [`unmerge_range`].
    pub(crate) fn unmerge_all(&mut self, ksm: &Ksm) -> Result {
        self.rewind();
        for round in 0..ROUNDS {
            self.unmerge_all_slots(ksm)?;
            if self.remove_unmapped_nodes(ksm) {
                break;
            }
            fsleep(Delta::from_millis(1 << round));
        }
        self.partitions.fit_stable(&mut self.nodes);
        ksm.stats.full_scans.set(0);
        Ok(())
    }

    fn unmerge_all_slots(&mut self, ksm: &Ksm) -> Result {
        let mut key = None;
        while let Some(slot) = ksm.slots.next_tracked(key, Which::All) {
            key = Some(slot.key());
            let unmerged = match user_of(slot.mm()) {
                Some(mm) => unmerge_mm(&mm),
                None => Ok(()),
            };
            if unmerged.is_ok() {
                if let Some(mm) = self.tracked(&slot) {
                    self.collect_rest(ksm, &mut ListCursor::front(mm));
                }
            }
            self.leave_slot(ksm, &slot);
            unmerged?;
        }
        Ok(())
    }

    /// Removes the nodes whose pages nothing maps any more; returns whether those were all.
    pub(crate) fn remove_unmapped_nodes(&mut self, ksm: &Ksm) -> bool {
        let mut nodes = KVVec::new();
        for node in self.nodes.handles() {
            // Without memory the rest has to wait for the next time.
            if nodes.push(node, GFP_KERNEL).is_err() {
                break;
            }
        }
        for node in nodes {
            self.remove_if_unmapped(ksm, node);
            kthread::cond_resched();
        }
        self.nodes.len() == 0
    }
}

fn unmerge_mm(mm: &MmWithUser) -> Result {
    let locked = ReadLockedMm::new(mm);
    for vma in locked.advised_from(0) {
        if let Some(vma) = vma.populated() {
            unmerge_range(vma.vma(), vma.range(), MmapLock::Read)?;
        }
    }
    Ok(())
}
