// SPDX-License-Identifier: GPL-2.0

//! Giving back private pages for merged ones: in a range, or everywhere for `run` = 2.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    mm::{
        address_space::{
            note_domain_change,
            user_of,
            ReadLockedMm, //
        },
        copies::{
            replace_all,
            Batch, //
        },
        domain::DomainRule,
        ksm_page::walk::{
            find_merged,
            Parted, //
        },
        unshare::{
            unshare,
            Fault, //
        },
        vma::{
            AdvisedVma,
            LockedVma, //
        }, //
    },
    policy::shared::Shared,
    records::{
        registry::Which,
        Records, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use core::ops::Range;
use kernel::{
    alloc::Flags,
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// Rounds of [`unmerge_all`]. A round misses what a fork copies behind its back, of which
/// zero pages have no node to show for it, and pages of a process that is just ending, perhaps by a
/// work item that the scan has left behind.
const ROUNDS: i64 = 8;

/// Bytes of address space that `run` = 2 looks through under one mmap lock.
const BYTES_AT_ONCE: usize = 1 << 30;

/// Batches of merged pages that it unmerges under one mmap lock.
const BATCHES_AT_ONCE: usize = 16;

/// The state when all has been undone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leftovers {
    None = 0,
    /// Nodes whose pages a process has that was just ending, or that is without the advice.
    Nodes = 1,
    /// Pages that userfaultfd keeps everybody from, or of a process that has just come.
    Guarded = 2,
}

/// Which pages were unmerged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unmerged {
    All,
    /// All but those that userfaultfd keeps everybody from.
    NotGuarded,
}

/// How far unmerging has come.
struct Progress {
    /// The address from which to go on.
    resume: usize,
    /// The result for the pages before it.
    unmerged: Unmerged,
}

/// Replaces all pages in `range` of `vma` that KSM has put there by private copies; `flags` say how to
/// allocate the list of them.
///
/// # Errors
///
/// `ENOMEM` if there is no memory for a copy, or for noting what is to be copied, `ERESTARTSYS` if a
/// signal is pending: the rest of the range is still merged then. `EBUSY` if userfaultfd keeps
/// everybody from pages that are merged: those still are. In all cases the caller must not take the
/// advice from the vma.
pub(crate) fn unmerge_range(vma: LockedVma<'_>, range: Range<usize>, flags: Flags) -> Result {
    let batch = &mut Batch::new(flags)?;
    match unmerge(vma, range, usize::MAX, (Parted::All, batch))? {
        Progress {
            unmerged: Unmerged::All,
            ..
        } => Ok(()),
        _ => Err(EBUSY),
    }
}

/// As [`unmerge_range`], but only for so many batches; `batch` is empty before and afterwards.
fn unmerge(
    vma: LockedVma<'_>,
    range: Range<usize>,
    batches: usize,
    (which, batch): (Parted, &mut Batch),
) -> Result<Progress> {
    let mut start = range.start;
    let mut unmerged = Unmerged::All;
    for _ in 0..batches {
        if find_merged(vma, start..range.end, which, batch) {
            unmerged = Unmerged::NotGuarded;
        }
        if batch.is_empty() {
            start = range.end;
            break;
        }
        race_delay::pause(RaceWindow::Unmerging);
        // The next walk begins where there is something left, and looks at it again.
        start = replace_all(vma, batch);
        for address in batch.drain() {
            match unshare(vma, address) {
                Fault::Handled => {}
                Fault::Gone if address == start => start += PAGE_SIZE,
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
    Ok(Progress {
        resume: start,
        unmerged,
    })
}

/// Unmerges every page of every address space, and forgets all that is known of them. Returns what is
/// left, which [`remove_leftovers`] is to look after.
///
/// # Errors
///
/// `ENOMEM` and `ERESTARTSYS` as [`unmerge_range`].
pub(crate) fn unmerge_all(shared: &Shared, records: &mut Records) -> Result<Leftovers> {
    let registry = &shared.registry;
    let mut guarded = false;
    for round in 0..ROUNDS {
        let arrivals = registry.arrivals();
        guarded = unmerge_all_slots(shared)? == Unmerged::NotGuarded;
        // Nodes first: they take their mappings with them, which else are looked up one by one.
        records.remove_unmapped_nodes();
        let all_removed = records.forget_items();
        collect_all_slots(shared, records);
        let any_came = registry.arrivals() != arrivals;
        if all_removed && !any_came {
            break;
        }
        guarded |= any_came;
        fsleep(Delta::from_millis(1 << round));
    }
    shared.stats.full_scans.set(0);
    Ok(leftovers(records, guarded))
}

/// Removes what [`unmerge_all`] had to leave, as far as that can be done now, and returns what is left
/// still; `guarded` if there were pages that nobody could part.
pub(crate) fn remove_leftovers(shared: &Shared, records: &mut Records, guarded: bool) -> Leftovers {
    // Without memory, the next time.
    let guarded = guarded && !matches!(unmerge_all_slots(shared), Ok(Unmerged::All));
    records.remove_unmapped_nodes();
    leftovers(records, guarded)
}

fn leftovers(records: &Records, guarded: bool) -> Leftovers {
    // Zero pages have no node.
    match records.has_nodes() {
        _ if guarded => Leftovers::Guarded,
        true => Leftovers::Nodes,
        false => Leftovers::None,
    }
}

/// Frees all items, and ends the tracking of their address spaces.
pub(crate) fn collect_all_slots(shared: &Shared, records: &mut Records) {
    let registry = &shared.registry;
    let mut key = None;
    while let Some(slot) = registry.next_tracked(key, Which::All) {
        key = Some(slot.key());
        records.collect_all(&slot);
        registry.release(&slot);
    }
    while let Some((number, slot)) = registry.next_discarded(None) {
        records.collect_all(&slot);
        registry.forget_discarded(number);
    }
}

/// Parts all pages of `mm` from KSM pages, in vmas with and without advice. Pages of zeros stay where they
/// are.
///
/// The mmap lock is given up now and then: the domain of `mm` is being changed, so nothing can be merged
/// meanwhile.
///
/// # Errors
///
/// As [`unmerge_range`].
pub(crate) fn part_mm(mm: &MmWithUser) -> Result {
    let mut batch = Batch::new(GFP_KERNEL)?;
    let mut address = 0;
    while let Some(progress) = part_some(mm, address, &mut batch)? {
        if progress.unmerged == Unmerged::NotGuarded {
            return Err(EBUSY);
        }
        address = progress.resume;
        kthread::cond_resched();
    }
    Ok(())
}

/// As [`unmerge_some`], for all pages of `mm` that have a stable node.
fn part_some(mm: &MmWithUser, address: usize, batch: &mut Batch) -> Result<Option<Progress>> {
    let locked = ReadLockedMm::new(mm);
    let Some(vma) = locked.vmas_from(address).find(LockedVma::is_populated) else {
        return Ok(None);
    };
    unmerge_in(vma, address, (Parted::KsmPages, batch)).map(Some)
}

/// Parts the address spaces whose domains change when `rule` counts and no longer `old`, and forgets their
/// items; nothing is merged meanwhile.
///
/// # Errors
///
/// As [`unmerge_range`]; `EAGAIN` if new processes keep coming faster than that.
pub(crate) fn part_domains(
    shared: &Shared,
    records: &mut Records,
    (old, rule): (DomainRule, DomainRule),
) -> Result {
    let registry = &shared.registry;
    for _ in 0..ROUNDS {
        // A process may have got merged pages from one that was not parted yet.
        let arrivals = registry.arrivals();
        let mut key = None;
        while let Some(slot) = registry.next_tracked(key, Which::All) {
            key = Some(slot.key());
            // One that has ended gets no more pages, and its items go when its pages have.
            let Some(mm) = user_of(slot.mm()) else {
                continue;
            };
            let word = ReadLockedMm::new(&mm).domain_word();
            if old.domain_of(word) != rule.domain_of(word) {
                note_domain_change(&mm)?;
                part_mm(&mm)?;
                records.collect_all(&slot);
                registry.release(&slot);
            }
        }
        if registry.arrivals() == arrivals {
            return Ok(());
        }
    }
    Err(EAGAIN)
}

fn unmerge_all_slots(shared: &Shared) -> Result<Unmerged> {
    let (mut key, mut unmerged) = (None, Unmerged::All);
    let mut batch = Batch::new(GFP_KERNEL)?;
    while let Some(slot) = shared.registry.next(key) {
        key = Some(slot.key());
        if let Some(mm) = user_of(slot.mm()) {
            if unmerge_mm(&mm, &mut batch)? == Unmerged::NotGuarded {
                unmerged = Unmerged::NotGuarded;
            }
        }
    }
    Ok(unmerged)
}

/// Unmerges the pages of `mm`, whose lock is given up now and then: nothing can be merged meanwhile, and
/// `mremap()` unmerges what it moves.
fn unmerge_mm(mm: &MmWithUser, batch: &mut Batch) -> Result<Unmerged> {
    let mut unmerged = Unmerged::All;
    let mut address = 0;
    while let Some(progress) = unmerge_some(mm, address, batch)? {
        if progress.unmerged == Unmerged::NotGuarded {
            unmerged = Unmerged::NotGuarded;
        }
        address = progress.resume;
        kthread::cond_resched();
    }
    Ok(unmerged)
}

/// Unmerges the next pages of `mm` from `address` on, as many as one hold of the mmap lock is good for;
/// `None` if there is no more advised memory.
fn unmerge_some(mm: &MmWithUser, address: usize, batch: &mut Batch) -> Result<Option<Progress>> {
    let locked = ReadLockedMm::new(mm);
    let mut advised = locked.vmas_from(address).filter_map(AdvisedVma::new);
    let Some(vma) = advised.find_map(AdvisedVma::populated) else {
        return Ok(None);
    };
    unmerge_in(vma.vma(), address, (Parted::All, batch)).map(Some)
}

/// Unmerges the next pages of `vma` from `address` on, as many as one hold of the mmap lock is good for.
fn unmerge_in(vma: LockedVma<'_>, address: usize, which: (Parted, &mut Batch)) -> Result<Progress> {
    let start = vma.range().start.max(address);
    let end = vma.range().end.min(start.saturating_add(BYTES_AT_ONCE));
    unmerge(vma, start..end, BATCHES_AT_ONCE, which)
}
