// SPDX-License-Identifier: GPL-2.0

//! Walks over the pages of a vma.

use crate::{
    mm::{
        copies::{
            Batch,
            Merged, //
        },
        folio::PinnedPage,
        ksm_folio::{
            self,
            Anchor,
            Tie, //
        },
        page_table::{
            HugePage,
            MappedPage,
            PageTable, //
        },
        vma::{
            LockedVma,
            MergeableVma, //
        }, //
    },
    pool::Pool,
    stable_node::StableNode,
    table::Handle, //
};
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// An anonymous page that a walk has met.
pub(crate) struct Candidate {
    pub(crate) address: usize,
    pub(crate) page: Met,
}

/// What kind of page was met.
pub(crate) enum Met {
    /// One that may be merged.
    Anonymous(PinnedPage),
    /// A KSM page. Nothing is held: the node says what there is to know.
    Ksm(Handle<StableNode>),
}

/// An anonymous page, to somebody who decides whether it becomes a candidate.
pub(crate) enum Seen<'a> {
    Anonymous,
    /// The KSM page of a node. To ask the anchor for more costs a cache miss.
    Ksm(&'a Anchor),
}

/// When a walk is to end.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Candidates in the batch, which has room for them.
    pub(crate) candidates: usize,
    /// Pages met.
    pub(crate) pages: usize,
}

/// How far a walk went.
pub(crate) struct Walked {
    /// The address from which to go on.
    pub(crate) resume: usize,
    /// Pages met.
    pub(crate) pages: usize,
    /// Whether there may be more pages in the range.
    pub(crate) is_cut_short: bool,
}

/// Walks `range` of `vma`, and puts into `batch` the pages that `keep` wants.
///
/// Of a large folio the batch gets one page, as its last: a second reference would keep the folio
/// from being split. `nodes` is the pool of all stable nodes, none of which can be removed
/// meanwhile. `keep` is called under a page-table lock, and may not sleep.
pub(crate) fn collect_candidates(
    vma: &MergeableVma<'_>,
    range: Range<usize>,
    nodes: &Pool<StableNode>,
    limits: Limits,
    batch: &mut KVec<Candidate>,
    keep: impl FnMut(usize, Seen<'_>) -> bool,
) -> Walked {
    let mut walk = CandidateWalk {
        nodes,
        limits,
        batch,
        keep,
        progress: Walked {
            resume: range.start,
            pages: 0,
            is_cut_short: true,
        },
    };
    for table in PageTable::all_in(vma.vma(), range.clone()) {
        crate::kthread::cond_resched();
        if walk.visit(&table) == Step::Stop {
            return walk.progress;
        }
    }
    walk.progress.resume = range.end;
    walk.progress.is_cut_short = false;
    walk.progress
}

/// The page at `address` of `vma`; `buffer` has room for it.
pub(crate) fn page_at(
    vma: &MergeableVma<'_>,
    address: usize,
    nodes: &Pool<StableNode>,
    buffer: &mut KVec<Candidate>,
) -> Option<Met> {
    let range = address..address + PAGE_SIZE;
    let limits = Limits {
        candidates: 1,
        pages: 1,
    };
    collect_candidates(vma, range, nodes, limits, buffer, |_, _| true);
    Some(buffer.pop()?.page)
}

/// Puts into `batch`, as long as that has room, the first addresses in `range` of `vma` that map a page
/// which KSM has put there, and which the vma's owner must have a copy of.
///
/// A KSM page that nobody else maps needs no copy: the owner gets the page itself at once. Returns
/// whether there are pages that userfaultfd keeps everybody from, which are left out.
pub(crate) fn find_merged(vma: LockedVma<'_>, range: Range<usize>, batch: &mut Batch) -> bool {
    let mut any_kept_out = false;
    vma.exclude_others();
    for table in PageTable::all_in(vma, range) {
        crate::kthread::cond_resched();
        let Some(mut entries) = table.lock() else {
            continue;
        };
        while let Some(entry) = entries.next_merged() {
            if ksm_folio::keep_last(&entry) {
                continue;
            }
            if entry.is_kept_out() {
                any_kept_out = true;
                continue;
            }
            if !batch.push(Merged::found(&entry)) {
                return any_kept_out;
            }
        }
    }
    any_kept_out
}

/// The state of [`collect_candidates`].
struct CandidateWalk<'a, F> {
    nodes: &'a Pool<StableNode>,
    limits: Limits,
    batch: &'a mut KVec<Candidate>,
    keep: F,
    progress: Walked,
}

/// Whether to go on with a walk.
#[derive(PartialEq, Eq)]
enum Step {
    Continue,
    Stop,
}

impl<F: FnMut(usize, Seen<'_>) -> bool> CandidateWalk<'_, F> {
    fn visit(&mut self, table: &PageTable<'_>) -> Step {
        if let Some(huge) = table.huge_page() {
            return self.meet_huge(huge);
        }
        let Some(mut entries) = table.lock() else {
            return Step::Continue;
        };
        while let Some(page) = entries.next_anonymous() {
            if self.meet(&page) == Step::Stop {
                return Step::Stop;
            }
        }
        Step::Continue
    }

    /// Whether the page at `address` is to become a candidate.
    fn wants(&mut self, address: usize, page: Seen<'_>) -> bool {
        self.progress.resume = address + PAGE_SIZE;
        self.progress.pages += 1;
        (self.keep)(address, page)
    }

    fn push(&mut self, address: usize, page: Met) -> Step {
        // There is room: the walk ends when the limit is reached.
        let pushed = self
            .batch
            .push_within_capacity(Candidate { address, page })
            .is_ok();
        match pushed && self.batch.len() < self.limits.candidates {
            true => self.go_on(),
            false => Step::Stop,
        }
    }

    fn go_on(&self) -> Step {
        match self.progress.pages < self.limits.pages {
            true => Step::Continue,
            false => Step::Stop,
        }
    }

    fn meet(&mut self, page: &MappedPage<'_>) -> Step {
        let address = page.address();
        match ksm_folio::tie_of_mapped(page, self.nodes) {
            Tie::Missing => {}
            Tie::Bound(anchor) if self.wants(address, Seen::Ksm(anchor)) => {
                return self.push(address, Met::Ksm(anchor.node()));
            }
            Tie::Unbound | Tie::Bound(_) => return self.go_on(),
        }
        if !self.wants(address, Seen::Anonymous) {
            return self.go_on();
        }
        match self.push(address, Met::Anonymous(page.hold())) {
            Step::Continue if !page.folio().is_large() => Step::Continue,
            _ => Step::Stop,
        }
    }

    /// Notes the first page that is wanted of a huge page, or a part of one.
    fn meet_huge(&mut self, huge: HugePage) -> Step {
        for address in huge.addresses() {
            if self.wants(address, Seen::Anonymous) {
                self.push(address, Met::Anonymous(huge.into_page_at(address)));
                return Step::Stop;
            }
            if self.go_on() == Step::Stop {
                return Step::Stop;
            }
        }
        Step::Continue
    }
}
