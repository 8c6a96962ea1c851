// SPDX-License-Identifier: GPL-2.0

//! Walks over the pages of a vma.

use crate::{
    kernel_api::kthread,
    mm::{
        copies::{
            Batch,
            Merged, //
        },
        held_pages::{
            HeldPage,
            HeldPages, //
        },
        ksm_page::{
            ids::NodeId,
            ksm_folio::{
                self,
                Anchor,
                AnchorOwner,
                Tie, //
            }, //
        },
        page::PinnedPage,
        page_table::{
            Entries,
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
use core::{
    cell::Cell,
    ops::Range, //
};
use kernel::{
    alloc::AllocError,
    page::PAGE_SIZE,
    prelude::*, //
};

/// An anonymous page that a walk has met.
pub(crate) struct Candidate {
    pub(crate) address: usize,
    pub(crate) page: FoundPage<HeldPage>,
}

/// The kind of a page that a walk has met.
pub(crate) enum FoundPage<Held> {
    /// One that may be merged.
    Anonymous(Held),
    /// A KSM page. Nothing is held: the node says what there is to know.
    Ksm(NodeId),
}

/// Candidates, and the references to their pages.
pub(crate) struct Candidates {
    pub(crate) found: KVec<Candidate>,
    pub(crate) held: HeldPages,
    /// The huge page that was asked last whether it was touched: the next walk may begin in its middle.
    asked: Option<AskedHuge>,
}

/// A huge page that was asked whether it was touched.
#[derive(Clone, Copy)]
struct AskedHuge {
    address: usize,
    was_touched: bool,
}

impl Candidates {
    /// Has room for `count` candidates.
    pub(crate) fn with_capacity(count: usize) -> Result<Self, AllocError> {
        Ok(Self {
            found: KVec::with_capacity(count, GFP_KERNEL)?,
            held: HeldPages::with_capacity(count)?,
            asked: None,
        })
    }

    /// Notes that the next walk is one of another address space, or of another scan.
    pub(crate) fn begin_visit(&mut self) {
        self.asked = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Gives all of them back.
    pub(crate) fn clear(&mut self) {
        self.found.clear();
        self.held.clear();
    }

    /// The answer that a walk over the first part of `huge` has had.
    fn answer_of(&self, huge: &HugePage) -> Option<bool> {
        let asked = self.asked?;
        (asked.address == huge.address() && !huge.is_whole()).then_some(asked.was_touched)
    }

    /// Takes the only candidate.
    fn take_only(&mut self) -> Option<FoundPage<PinnedPage>> {
        let page = match self.found.pop()?.page {
            FoundPage::Anonymous(held) => self.held.take(held).map(FoundPage::Anonymous),
            FoundPage::Ksm(node) => Some(FoundPage::Ksm(node)),
        };
        self.held.clear();
        page
    }
}

/// An anonymous page, to somebody who decides whether it becomes a candidate.
#[derive(Clone, Copy)]
pub(crate) enum Seen<'a> {
    Anonymous(Touches<'a>),
    /// The KSM page of a node. To ask the anchor for more costs a cache miss.
    Ksm(&'a Anchor),
}

/// Whether an anonymous page was touched, by a program or a guest, since that was last asked.
#[derive(Clone, Copy)]
pub(crate) enum Touches<'a> {
    Small(&'a MappedPage<'a>),
    Huge(&'a HugeTouches<'a>),
    #[cfg(CONFIG_KUNIT = "y")]
    Fake(bool),
}

impl Touches<'_> {
    /// Asks, and forgets the answer.
    pub(crate) fn take(self) -> bool {
        match self {
            Self::Small(page) => page.take_touched(),
            Self::Huge(huge) => huge.take(),
            #[cfg(CONFIG_KUNIT = "y")]
            Self::Fake(touched) => touched,
        }
    }
}

/// Whether a huge page was touched: the same for all of its pages, and asked once at most.
pub(crate) struct HugeTouches<'a> {
    table: &'a PageTable<'a>,
    huge: &'a HugePage,
    answer: Cell<Option<bool>>,
}

impl HugeTouches<'_> {
    fn take(&self) -> bool {
        let answer = self.answer.get().unwrap_or_else(|| {
            // Who goes on in the middle would find what the walk over the first part has forgotten.
            !self.huge.is_whole() || self.table.take_touched_huge(self.huge.first())
        });
        self.answer.set(Some(answer));
        answer
    }
}

/// The decision on a page that a walk has met.
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

    /// Whether [`Filter::passes_untouched`] is to be asked.
    fn knows_untouched(&self) -> bool;

    /// Whether the page at `address`, which may be of any kind, is passed over because nobody has touched it,
    /// without a look at it. If not, [`Filter::decide`] is asked about it next. As there, this may not sleep.
    fn passes_untouched(&mut self, address: usize) -> bool;

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
/// All pages of a large folio share one reference. `owner` keeps the stable nodes meanwhile.
pub(crate) fn collect_candidates(
    vma: &MergeableVma<'_>,
    range: Range<usize>,
    owner: &impl AnchorOwner,
    limit: usize,
    batch: &mut Candidates,
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

    fn knows_untouched(&self) -> bool {
        false
    }

    fn passes_untouched(&mut self, _: usize) -> bool {
        false
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
    buffer: &mut Candidates,
) -> Option<FoundPage<PinnedPage>> {
    let range = address..address + PAGE_SIZE;
    collect_candidates(vma, range, owner, 1, buffer, &mut Anything);
    buffer.take_only()
}

/// Puts into `batch`, as long as that has room, the first addresses in `range` of `vma` that map a page
/// which KSM has put there, and which the vma's owner must have a copy of.
///
/// A KSM page that nobody else maps needs no copy: the owner gets the page itself at once. Returns
/// whether there are pages that userfaultfd keeps everybody from, which are left out.
pub(crate) fn find_merged(
    vma: LockedVma<'_>,
    range: Range<usize>,
    which: Parted,
    batch: &mut Batch,
) -> bool {
    let mut any_kept_out = false;
    vma.exclude_others();
    for table in PageTable::all_in(vma, range) {
        kthread::cond_resched();
        let Some(mut entries) = table.lock() else {
            continue;
        };
        while let Some(entry) = entries.next_merged() {
            if which == Parted::KsmPages && entry.get().is_of_zeros()
                || ksm_folio::keep_last(&entry)
            {
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

/// Which pages are given back private ones.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parted {
    /// All that KSM has put there.
    All,
    /// KSM pages, not zero pages.
    KsmPages,
}

/// The state of [`collect_candidates`].
struct CandidateWalk<'a, O, F> {
    owner: &'a O,
    limit: usize,
    batch: &'a mut Candidates,
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
            return self.meet_huge(&table, huge);
        }
        let Some(mut entries) = table.lock() else {
            return Step::Continue;
        };
        let knows_untouched = self.filter.knows_untouched();
        loop {
            if knows_untouched {
                self.pass_untouched(&mut entries);
            }
            let Some(page) = entries.next_anonymous() else {
                return Step::Continue;
            };
            if self.meet(&page) == Step::Stop {
                return Step::Stop;
            }
        }
    }

    /// Goes past pages that need no look. Most of what it costs to pass over a page is the wait for its
    /// `struct page`.
    fn pass_untouched(&mut self, entries: &mut Entries<'_>) {
        while let Some(address) = entries.untouched() {
            if !self.filter.passes_untouched(address) {
                return;
            }
            entries.pass();
            self.resume = address + PAGE_SIZE;
        }
    }

    fn decide(&mut self, address: usize, page: Seen<'_>) -> Decision {
        let decision = self.filter.decide(address, page);
        self.resume = match decision {
            Decision::Stop => address,
            Decision::Take | Decision::Pass => address + PAGE_SIZE,
        };
        decision
    }

    fn push(&mut self, address: usize, page: FoundPage<HeldPage>) -> Step {
        // There is room: the walk ends when the limit is reached.
        let found = &mut self.batch.found;
        let pushed = found
            .push_within_capacity(Candidate { address, page })
            .is_ok();
        match pushed && found.len() < self.limit {
            true => Step::Continue,
            false => Step::Stop,
        }
    }

    fn push_held(&mut self, address: usize, page: Option<HeldPage>) -> Step {
        match page {
            Some(held) => self.push(address, FoundPage::Anonymous(held)),
            None => Step::Stop,
        }
    }

    fn meet(&mut self, page: &MappedPage<'_>) -> Step {
        let address = page.address();
        let (seen, node) = match ksm_folio::tie_of_mapped(page, self.owner) {
            Tie::Missing => (Seen::Anonymous(Touches::Small(page)), None),
            Tie::Bound(anchor) => (Seen::Ksm(anchor), Some(anchor)),
            Tie::Unbound => return Step::Continue,
        };
        match (self.decide(address, seen), node) {
            (Decision::Stop, _) => Step::Stop,
            (Decision::Pass, _) => Step::Continue,
            (Decision::Take, Some(anchor)) => self.push(address, FoundPage::Ksm(anchor.node())),
            (Decision::Take, None) => {
                let held = self.hold(page);
                self.push_held(address, held)
            }
        }
    }

    /// Holds `page`, by the reference to another page of its folio if there is one.
    fn hold(&mut self, page: &MappedPage<'_>) -> Option<HeldPage> {
        let held = &mut self.batch.held;
        let found = match page.folio().is_large() {
            true => held.find(page.folio(), page.part()),
            false => None,
        };
        found.or_else(|| held.hold(page.hold()))
    }

    /// Takes the pages that are wanted of a huge page, or of a part of one.
    fn meet_huge(&mut self, table: &PageTable<'_>, huge: HugePage) -> Step {
        let touches = HugeTouches {
            table,
            huge: &huge,
            answer: Cell::new(self.batch.answer_of(&huge)),
        };
        let step = self.meet_pages_of(&huge, &touches);
        if let Some(was_touched) = touches.answer.get() {
            let address = huge.address();
            self.batch.asked = Some(AskedHuge {
                address,
                was_touched,
            });
        }
        step
    }

    fn meet_pages_of(&mut self, huge: &HugePage, touches: &HugeTouches<'_>) -> Step {
        let mut first = None;
        for (distance, address) in huge.addresses().enumerate() {
            match self.decide(address, Seen::Anonymous(Touches::Huge(touches))) {
                Decision::Pass => continue,
                Decision::Stop => return Step::Stop,
                Decision::Take => {}
            }
            let held = &mut self.batch.held;
            first = first.or_else(|| held.hold(huge.first().share()));
            let wanted = first.and_then(|first| held.behind(first, distance));
            if self.push_held(address, wanted) == Step::Stop {
                return Step::Stop;
            }
        }
        Step::Continue
    }
}
