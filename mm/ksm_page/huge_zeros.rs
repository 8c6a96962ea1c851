// SPDX-License-Identifier: GPL-2.0

//! Replacing a whole huge page of zeros by the zero page.
//!
//! To split it would map each of its pages, to unmap it a moment later. So its page table is filled with
//! entries of the zero page instead, if nobody else uses any part of it.

#![deny(unsafe_code)]

use crate::{
    mm::{
        notifier::with_range_invalidated,
        page::PinnedPage,
        page_table::{
            PageTable,
            ProtectedHuge, //
        },
        vma::MergeableVma, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};

/// Maps the zero page instead of the huge page of `page`, which `address` maps, if all of that holds zeros;
/// returns whether. Sleeps.
///
/// Only the first page of a huge page leads to an attempt: where that fails, so would those of all others, each
/// of which looks at the whole huge page.
///
/// The caller has the only reference to the huge page that its mappings do not explain.
pub(crate) fn replace(vma: &MergeableVma<'_>, address: usize, page: &PinnedPage) -> bool {
    // Nothing is locked or emptied for a page that does not look like one of zeros.
    let is_first = page.folio().is_large() && page.part() == 0;
    if !is_first || !page.parts().all(|part| part.sample_is_zero()) {
        return false;
    }
    let (Some(locked), Some(table)) = (page.folio().try_lock(), PageTable::at(vma.vma(), address))
    else {
        return false;
    };
    let range = || table.huge_range();
    let protected =
        with_range_invalidated(vma.vma(), range(), || table.protect_huge(page, &locked));
    race_delay::pause(RaceWindow::Protected);
    // If there is something in it after all, a write fault will find that it belongs to its owner alone.
    let zero = protected.and_then(ProtectedHuge::if_zero);
    zero.is_some_and(|zero| with_range_invalidated(vma.vma(), range(), || zero.map_zeros()))
}
