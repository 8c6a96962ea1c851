// SPDX-License-Identifier: GPL-2.0

//! Merging, and undoing it.
//!
//! [`Merging`] looks for the equals of a page, and merges them; `lookup.rs` and `merge.rs` have its
//! functions.

#![deny(unsafe_code)]

mod lookup;
pub(crate) mod merge;
mod split;
pub(crate) mod unmerge;

use crate::{
    mm::{
        address_space::Patience,
        domain::Domain,
        folio_batch::FolioBatch,
        ksm_page::{
            compare::Compare,
            walk::Candidates, //
        },
        page::{
            Page,
            PinnedPage, //
        }, //
    },
    page::checksum::Keys,
    policy::shared::Shared,
    records::Records, //
};
use kernel::{
    mm::MmWithUser,
    prelude::*, //
};

/// After two pages with equal samples were found different, this many pages are compared whole.
const PAGES_TO_COMPARE_WHOLE: u32 = 256;

/// State that merging keeps from page to page. The scan mutex protects it.
pub(crate) struct MergeState {
    keys: Keys,
    /// How long a batch may still wait for mmap locks.
    patience: Patience,
    /// The number of further pages that are compared whole, as samples have misled.
    pages_to_compare_whole: u32,
    /// Whether pages were met that may wait in a CPU's LRU batch: new ones, those that would not
    /// merge, and those that have. While they do, they have one reference too many to be merged, and
    /// a mapping that is locked in memory is not counted.
    is_drain_wanted: bool,
    /// Pages that were replaced, and that nothing but a reference keeps from being freed.
    outgoing: FolioBatch,
    /// Has room for the one page that another is compared with.
    probe: Candidates,
}

impl MergeState {
    /// `seed` makes the checksums of this load unlike those of any other.
    pub(crate) fn new(seed: u64) -> Result<Self> {
        Ok(Self {
            keys: Keys::new(seed),
            patience: Patience::default(),
            pages_to_compare_whole: 0,
            is_drain_wanted: false,
            outgoing: FolioBatch::new(),
            probe: Candidates::with_capacity(1)?,
        })
    }

    /// What checksums are made with.
    pub(crate) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Begins a batch; returns how long it may wait for mmap locks.
    pub(crate) fn begin_batch(&mut self) -> &mut Patience {
        self.patience = Patience::default();
        &mut self.patience
    }

    /// Turns to pages of `domain`.
    pub(crate) fn enter_domain(&mut self, domain: Domain) {
        self.keys.enter_domain(domain.number());
    }

    /// Notes that a page was met for the first time.
    pub(crate) fn note_new_page(&mut self) {
        self.is_drain_wanted = true;
    }

    /// Whether the LRU batches of the CPUs are to be drained; they are after that.
    pub(crate) fn take_drain_wanted(&mut self) -> bool {
        core::mem::take(&mut self.is_drain_wanted)
    }

    /// How to compare `page` with others before a merge is attempted.
    ///
    /// An attempt that fails has emptied a page table entry for nothing, and may have split a huge page.
    /// But a comparison of whole pages before each attempt makes merges a quarter slower, and nearly all
    /// pages with equal checksums are equal. So large folios, which have to be split, are compared
    /// whole, and small ones only for some time after samples have misled.
    fn how_to_compare(&mut self, page: &Page) -> Compare {
        let is_doubtful = self.pages_to_compare_whole > 0;
        self.pages_to_compare_whole -= u32::from(is_doubtful);
        match is_doubtful || page.folio().is_large() {
            true => Compare::Whole,
            false => Compare::Sample,
        }
    }

    /// Notes that pages with equal samples were found different.
    fn note_false_match(&mut self) {
        self.pages_to_compare_whole = PAGES_TO_COMPARE_WHOLE;
    }

    /// Gives up the reference to `page`; together with others if the page was replaced, so that
    /// it goes with its last reference.
    pub(crate) fn give_up(&mut self, page: PinnedPage) {
        if !page.folio().is_mapped() {
            self.outgoing.push(page);
        }
    }

    /// Ends a batch: gives up the references that [`MergeState::give_up`] has kept.
    pub(crate) fn end_batch(&mut self) {
        self.outgoing.put_all();
    }
}

/// See the [module's description](self).
pub(crate) struct Merging<'a> {
    shared: &'a Shared,
    records: &'a mut Records,
    state: &'a mut MergeState,
    /// The address space whose pages are merged.
    mm: &'a MmWithUser,
}

impl<'a> Merging<'a> {
    pub(crate) fn new(
        shared: &'a Shared,
        records: &'a mut Records,
        state: &'a mut MergeState,
        mm: &'a MmWithUser,
    ) -> Self {
        Self {
            shared,
            records,
            state,
            mm,
        }
    }

    /// See [`MergeState::take_drain_wanted`].
    pub(crate) fn take_drain_wanted(&mut self) -> bool {
        self.state.take_drain_wanted()
    }
}

#[kernel::macros::kunit_tests(ksm_rs_merging)]
mod tests {
    use super::*;
    use crate::mm::page::fresh;

    #[test]
    fn small_pages_are_compared_whole_for_some_time_after_a_false_match() -> Result {
        let mut state = MergeState::new(1)?;
        let page = fresh::page(1)?;
        for _ in 0..2 {
            assert!(state.how_to_compare(&page) == Compare::Sample);
            state.note_false_match();
            for _ in 0..PAGES_TO_COMPARE_WHOLE {
                assert!(state.how_to_compare(&page) == Compare::Whole);
            }
        }
        Ok(())
    }

    #[test]
    fn pages_of_large_folios_are_always_compared_whole() -> Result {
        let mut state = MergeState::new(1)?;
        let large = fresh::large(2)?;
        assert!(state.how_to_compare(&large) == Compare::Whole);
        Ok(())
    }

    #[test]
    fn a_drain_is_wanted_once() -> Result {
        let mut state = MergeState::new(1)?;
        assert!(!state.take_drain_wanted());
        state.note_new_page();
        assert!(state.take_drain_wanted() && !state.take_drain_wanted());
        Ok(())
    }
}
