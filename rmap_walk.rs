// SPDX-License-Identifier: GPL-2.0

//! Finding the mappings of a KSM page for reclaim, migration and memory failure.

#![deny(unsafe_code)]

use crate::{
    kthread,
    mappings::Mapping,
    mm::{
        ksm_folio::KsmFolio,
        rmap::{
            RmapWalkControl,
            Walk, //
        }, //
    },
    window::{
        self,
        Window, //
    }, //
};

/// Which vmas of a mapping's anon_vma a round visits.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// That of the address space that the mapping is of.
    Merged,
    /// Those of other address spaces: forks that the scan has not come to yet.
    Forks,
}

/// Shows `control` each place where the page may be mapped, until it has seen enough.
pub(crate) fn rmap_walk(folio: &KsmFolio<'_>, control: &mut RmapWalkControl<'_>) {
    for round in [Round::Merged, Round::Forks] {
        for mapping in folio.mappings().iter() {
            kthread::cond_resched();
            window::pause(Window::Walking);
            if walk_mapping(folio, mapping, round, control) == Walk::Done {
                return;
            }
        }
    }
}

fn walk_mapping(
    folio: &KsmFolio<'_>,
    mapping: &Mapping,
    round: Round,
    control: &mut RmapWalkControl<'_>,
) -> Walk {
    let Some(anon_vma) = control.lock(mapping.area.anon_vma()) else {
        return Walk::Done;
    };
    let address = mapping.address();
    // A merged page is never moved: mremap() unmerges first. So its index has stayed the same.
    for vma in anon_vma.vmas_with(mapping.index()) {
        kthread::cond_resched();
        let own = vma.mm() as usize == mapping.area.mm();
        if own != (round == Round::Merged) || !vma.contains(address) {
            continue;
        }
        if control.visit(folio.folio(), &vma, address) == Walk::Done {
            return Walk::Done;
        }
    }
    Walk::Continue
}
