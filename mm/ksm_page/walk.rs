// SPDX-License-Identifier: GPL-2.0

//! Walks over the pages of a vma.

use crate::{
    kernel_api::kthread,
    mm::{
        copies::{
            Batch,
            Merged, //
        },
        folio::PinnedPage,
        ksm_page::{
            ids::NodeId,
            ksm_folio::{
                self,
                Anchor,
                AnchorOwner,
                Tie, //
            }, //
        },
        page_table::{
            HugePage,
            MappedPage,
            PageTable,
            Part, //
        },
        vma::{
            LockedVma,
            MergeableVma, //
        }, //
    }, //
};
use core::ops::Range;
use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

/// An anonymous page that a walk has met.
pub(crate) struct Candidate {
    pub(crate) address: usize,
    pub(crate) page: FoundPage,
}

/// What kind of page was met.
pub(crate) enum FoundPage {
    /// One that may be merged.
    Anonymous(PinnedPage),
    /// A KSM page. Nothing is held: the node says what there is to know.
    Ksm(NodeId),
}

/// An anonymous page, to somebody who decides whether it becomes a candidate.
pub(crate) enum Seen<'a> {
    Anonymous,
    /// The KSM page of a node. To ask the anchor for more costs a cache miss.
    Ksm(&'a Anchor),
}

/// What becomes of a page that a walk has met.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It becomes a candidate.
    Take,
    /// It does not.
    Pass,
    /// The walk ends before it.
    Stop,
}

/// The part of a walk that knows which pages are wanted.
pub(crate) trait Filter {
    /// Whether the walk may look through one more page table, or past one more range that has none.
    fn enters_table(&mut self) -> bool;

    /// Decides on the page at `address`; called under a page-table lock, so it may not sleep.
    fn decide(&mut self, address: usize, page: Seen<'_>) -> Decision;
}

/// How far a walk went.
pub(crate) struct Walked {
    /// The address from which to go on.
    pub(crate) resume: usize,
    /// Whether there may be more pages in the range.
    pub(crate) is_cut_short: bool,
}

/// Walks `range` of `vma`, and puts into `batch`, which has room for `limit` candidates, the pages
/// that `filter` takes.
///
/// Of a large folio the batch gets one page, as its last: a second reference would keep the folio
/// from being split. `owner` keeps the stable nodes meanwhile.
pub(crate) fn collect_candidates(
    vma: &MergeableVma<'_>,
    range: Range<usize>,
    owner: &impl AnchorOwner,
    limit: usize,
    batch: &mut KVec<Candidate>,
    filter: &mut impl Filter,
) -> Walked {
    let mut walk = CandidateWalk {
        owner,
        limit,
        batch,
        filter,
        resume: range.start,
    };
    for part in PageTable::parts_of(vma.vma(), range.clone()) {
        kthread::cond_resched();
        walk.resume = walk.resume.max(part.range().start);
        if walk.visit(part) == Step::Stop {
            return Walked {
                resume: walk.resume,
                is_cut_short: true,
            };
        }
    }
    Walked {
        resume: range.end,
        is_cut_short: false,
    }
}

/// Takes any page.
struct Anything;

impl Filter for Anything {
    fn enters_table(&mut self) -> bool {
        true
    }

    fn decide(&mut self, _: usize, _: Seen<'_>) -> Decision {
        Decision::Take
    }
}

/// The page at `address` of `vma`; `buffer` has room for it.
pub(crate) fn page_at(
    vma: &MergeableVma<'_>,
    address: usize,
    owner: &impl AnchorOwner,
    buffer: &mut KVec<Candidate>,
) -> Option<FoundPage> {
    let range = address..address + PAGE_SIZE;
    collect_candidates(vma, range, owner, 1, buffer, &mut Anything);
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
        kthread::cond_resched();
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
struct CandidateWalk<'a, O, F> {
    owner: &'a O,
    limit: usize,
    batch: &'a mut KVec<Candidate>,
    filter: &'a mut F,
    /// The address from which to go on.
    resume: usize,
}

/// Whether to go on with a walk.
#[derive(PartialEq, Eq)]
enum Step {
    Continue,
    Stop,
}

impl<O: AnchorOwner, F: Filter> CandidateWalk<'_, O, F> {
    fn visit(&mut self, part: Part<'_>) -> Step {
        if !self.filter.enters_table() {
            return Step::Stop;
        }
        let Part::Table(table) = part else {
            return Step::Continue;
        };
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

    fn decide(&mut self, address: usize, page: Seen<'_>) -> Decision {
        let decision = self.filter.decide(address, page);
        self.resume = match decision {
            Decision::Stop => address,
            Decision::Take | Decision::Pass => address + PAGE_SIZE,
        };
        decision
    }

    fn push(&mut self, address: usize, page: FoundPage) -> Step {
        // There is room: the walk ends when the limit is reached.
        let pushed = self
            .batch
            .push_within_capacity(Candidate { address, page })
            .is_ok();
        match pushed && self.batch.len() < self.limit {
            true => Step::Continue,
            false => Step::Stop,
        }
    }

    fn meet(&mut self, page: &MappedPage<'_>) -> Step {
        let address = page.address();
        let (seen, node) = match ksm_folio::tie_of_mapped(page, self.owner) {
            Tie::Missing => (Seen::Anonymous, None),
            Tie::Bound(anchor) => (Seen::Ksm(anchor), Some(anchor)),
            Tie::Unbound => return Step::Continue,
        };
        match (self.decide(address, seen), node) {
            (Decision::Stop, _) => Step::Stop,
            (Decision::Pass, _) => Step::Continue,
            (Decision::Take, Some(anchor)) => self.push(address, FoundPage::Ksm(anchor.node())),
            (Decision::Take, None) => match self.push(address, FoundPage::Anonymous(page.hold())) {
                Step::Continue if !page.folio().is_large() => Step::Continue,
                _ => Step::Stop,
            },
        }
    }

    /// Takes the first page that is wanted of a huge page, or of a part of one.
    fn meet_huge(&mut self, huge: HugePage) -> Step {
        for address in huge.addresses() {
            match self.decide(address, Seen::Anonymous) {
                Decision::Pass => {}
                Decision::Stop => return Step::Stop,
                Decision::Take => {
                    self.push(address, FoundPage::Anonymous(huge.into_page_at(address)));
                    return Step::Stop;
                }
            }
        }
        Step::Continue
    }
}
