// SPDX-License-Identifier: GPL-2.0

//! Finding the mappings of a KSM page for reclaim, migration and memory failure.

#![deny(unsafe_code)]

use crate::{
    kernel_api::kthread,
    mm::{
        anon_vma::AnonVmaReadGuard,
        ksm_page::{
            ksm_folio::KsmFolio,
            mappings::Mapping,
            merged_vma::MergedVma, //
        },
        rmap::{
            RmapWalkControl,
            Walk, //
        }, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use core::iter::{
    from_fn,
    once, //
};
use kernel::sync::Arc;

/// Which vmas of a mapping's anon_vma a round visits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// That of the address space that the mapping is of.
    Merged,
    /// Those of other address spaces: forks that the scan has not come to yet.
    Forks,
}

/// How many mappings are shown under one lock at most, if nobody waits for it.
const MAPPINGS_AT_ONCE: usize = 32;

/// Shows `control` each place where the page may be mapped, until it has seen enough.
pub(crate) fn rmap_walk(folio: &KsmFolio<'_>, control: &mut RmapWalkControl<'_>) {
    for round in [Round::Merged, Round::Forks] {
        let mut mappings = folio.mappings().iter().peekable();
        while let Some(first) = mappings.next() {
            kthread::cond_resched();
            race_delay::pause(RaceWindow::Walking);
            // Mappings are listed as the scan has come to them, so neighbours often share a lock.
            let neighbours =
                from_fn(|| mappings.next_if(|mapping| Arc::ptr_eq(&mapping.vma, &first.vma)));
            let run = once(first).chain(neighbours).take(MAPPINGS_AT_ONCE);
            if walk_run(folio, &first.vma, run, round, control) == Walk::Done {
                return;
            }
        }
    }
}

/// Walks a `run` of mappings of one vma: all of it, or until somebody waits for the lock.
fn walk_run<'a>(
    folio: &KsmFolio<'_>,
    vma: &MergedVma,
    run: impl Iterator<Item = &'a Mapping>,
    round: Round,
    control: &mut RmapWalkControl<'_>,
) -> Walk {
    let Some(anon_vma) = control.lock(vma.anon_vma()) else {
        return Walk::Done;
    };
    for mapping in run {
        let is_wanted = anon_vma.resched();
        if walk_mapping(folio, mapping, &anon_vma, round, control) == Walk::Done {
            return Walk::Done;
        }
        if is_wanted {
            break;
        }
    }
    Walk::Continue
}

fn walk_mapping(
    folio: &KsmFolio<'_>,
    mapping: &Mapping,
    anon_vma: &AnonVmaReadGuard<'_>,
    round: Round,
    control: &mut RmapWalkControl<'_>,
) -> Walk {
    let index = mapping.index();
    for (count, vma) in anon_vma.vmas_with(index).enumerate() {
        // Mostly there is one, and who walks a run has just given others a chance.
        if count > 0 {
            kthread::cond_resched();
        }
        let own = vma.mm() as usize == mapping.vma.mm();
        if own != (round == Round::Merged) {
            continue;
        }
        // Not where the page was when it was listed: `mremap()` leaves the index as it is, and does
        // not unmerge what has no advice, or is not merged yet.
        if control.visit(folio.folio(), &vma, vma.address_of(index)) == Walk::Done {
            return Walk::Done;
        }
    }
    Walk::Continue
}
