// SPDX-License-Identifier: GPL-2.0

//! Walks over the page tables of a vma.
//!
//! C header: [`include/linux/pagewalk.h`](srctree/include/linux/pagewalk.h)

use crate::{
    mm::{
        folio::{
            Folio,
            PinnedPage, //
        },
        ksm_folio,
        vma::MergeableVma, //
    },
    pool::{
        Handle,
        Pool, //
    },
    stable_node::StableNode, //
};
use core::{
    ops::Range,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    bindings,
    mm::virt::VmaRef,
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
pub(crate) enum Seen {
    Anonymous,
    /// The KSM page of a node.
    Ksm(Handle<StableNode>),
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
/// from being split. `nodes` is the arena of all stable nodes, none of which can be removed
/// meanwhile. `keep` is called under a page-table lock, and may not sleep.
pub(crate) fn collect_candidates(
    vma: &MergeableVma<'_>,
    range: Range<usize>,
    nodes: &Pool<StableNode>,
    limits: Limits,
    batch: &mut KVec<Candidate>,
    keep: impl FnMut(usize, Seen) -> bool,
) -> Walked {
    let end = range.end;
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
    if walk_range(vma.vma(), range, walk.ops(), &mut walk) == Step::Continue {
        walk.progress.resume = end;
        walk.progress.is_cut_short = false;
    }
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

/// Up to this many addresses are found by one walk for pages to be unmerged.
pub(crate) const UNMERGE_BATCH: usize = 64;

/// Addresses of pages that KSM has put there.
pub(crate) struct MergedAddresses {
    addresses: [usize; UNMERGE_BATCH],
    len: usize,
}

impl MergedAddresses {
    pub(crate) fn as_slice(&self) -> &[usize] {
        &self.addresses[..self.len]
    }
}

/// How a caller holds the mmap lock.
#[derive(Clone, Copy)]
pub(crate) enum MmapLock {
    Read,
    /// For writing; the walk then write-locks the vma too.
    Write,
}

/// The first addresses in `range` of `vma` that map a page which KSM has put there.
pub(crate) fn find_merged(vma: &VmaRef, range: Range<usize>, lock: MmapLock) -> MergedAddresses {
    let mut found = MergedAddresses {
        addresses: [0; UNMERGE_BATCH],
        len: 0,
    };
    let ops = match lock {
        MmapLock::Read => &MERGED_OPS,
        MmapLock::Write => &MERGED_WRITE_OPS,
    };
    walk_range(vma, range, ops, &mut found);
    found
}

const MERGED_OPS: bindings::mm_walk_ops = bindings::mm_walk_ops {
    pmd_entry: Some(merged_pmd_entry),
    walk_lock: bindings::page_walk_lock_PGWALK_RDLOCK,
    ..pin_init::zeroed()
};

const MERGED_WRITE_OPS: bindings::mm_walk_ops = bindings::mm_walk_ops {
    walk_lock: bindings::page_walk_lock_PGWALK_WRLOCK,
    ..MERGED_OPS
};

/// Says how the last callback ended, if there was one.
fn walk_range<T>(
    vma: &VmaRef,
    range: Range<usize>,
    ops: &bindings::mm_walk_ops,
    data: &mut T,
) -> Step {
    if range.is_empty() {
        return Step::Continue;
    }
    // SAFETY: The mmap lock is held by the invariant of `VmaRef`. The callback of `ops` is told the
    // type of `data` by the constant it stands in, and is not called after this returns.
    let result = unsafe {
        bindings::walk_page_range_vma(
            vma.as_ptr(),
            range.start,
            range.end,
            ops,
            ptr::from_mut(data).cast(),
        )
    };
    // The callbacks return no errors, so the only one there can be is about the arguments.
    debug_assert!(result >= 0);
    match result {
        1 => Step::Stop,
        _ => Step::Continue,
    }
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

impl From<Step> for c_int {
    fn from(step: Step) -> Self {
        match step {
            Step::Continue => 0,
            Step::Stop => 1,
        }
    }
}

impl<F: FnMut(usize, Seen) -> bool> CandidateWalk<'_, F> {
    const OPS: bindings::mm_walk_ops = bindings::mm_walk_ops {
        pmd_entry: Some(candidate_pmd_entry::<F>),
        walk_lock: bindings::page_walk_lock_PGWALK_RDLOCK,
        ..pin_init::zeroed()
    };

    /// What a walk with `self` as its data calls.
    fn ops(&self) -> &'static bindings::mm_walk_ops {
        &Self::OPS
    }

    /// Whether the page at `address` is to become a candidate.
    fn wants(&mut self, address: usize, page: Seen) -> bool {
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

    /// Notes the page at `address`.
    ///
    /// # Safety
    ///
    /// `page` must be an anonymous page that is mapped under a page-table lock, which is held.
    unsafe fn meet(&mut self, address: usize, page: NonNull<bindings::page>) -> Step {
        // SAFETY: The page is mapped, which does not change while the lock is held.
        let folio = unsafe { Folio::from_raw(bindings::page_folio(page.as_ptr())) };
        if folio.is_ksm() {
            // SAFETY: As above.
            return match unsafe { ksm_folio::node_of_mapped(folio, self.nodes) } {
                Some(node) if self.wants(address, Seen::Ksm(node)) => {
                    self.push(address, Met::Ksm(node))
                }
                _ => self.go_on(),
            };
        }
        if !self.wants(address, Seen::Anonymous) {
            return self.go_on();
        }
        // SAFETY: As above; the reference goes to the `PinnedPage`.
        let (page, large) = unsafe {
            bindings::folio_get(folio.as_raw());
            let large = bindings::folio_test_large(folio.as_raw());
            (PinnedPage::from_raw(page), large)
        };
        match self.push(address, Met::Anonymous(page)) {
            Step::Continue if !large => Step::Continue,
            _ => Step::Stop,
        }
    }

    /// Notes the first page that is wanted of the part of a huge page that lies in `range`.
    ///
    /// # Safety
    ///
    /// `page` must be the first page of that part, and the caller must own a reference to the
    /// folio, which it gives up.
    unsafe fn meet_huge(&mut self, range: Range<usize>, page: NonNull<bindings::page>) -> Step {
        // SAFETY: The caller vouches for it.
        let first = unsafe { PinnedPage::from_raw(page) };
        for (index, address) in range.step_by(PAGE_SIZE).enumerate() {
            if self.wants(address, Seen::Anonymous) {
                // SAFETY: The page is in the same part of the folio.
                let page = unsafe { first.into_neighbour(index) };
                self.push(address, Met::Anonymous(page));
                return Step::Stop;
            }
            if self.go_on() == Step::Stop {
                return Step::Stop;
            }
        }
        Step::Continue
    }
}

/// Calls `visit` for each entry of a page table, whose lock is held meanwhile.
///
/// # Safety
///
/// `pmd` must be an entry of the page tables of the vma that `walk` walks, for `range`.
unsafe fn for_each_pte(
    walk: *const bindings::mm_walk,
    pmd: *mut bindings::pmd_t,
    range: Range<usize>,
    mut visit: impl FnMut(usize, *mut bindings::pte_t) -> Step,
) -> Step {
    let mut lock = ptr::null_mut();
    // SAFETY: The caller vouches for the entry.
    let first =
        unsafe { bindings::ksm_pte_offset_map_lock((*walk).mm, pmd, range.start, &mut lock) };
    if first.is_null() {
        return Step::Continue;
    }
    let mut entry = first;
    let mut step = Step::Continue;
    for address in range.step_by(PAGE_SIZE) {
        step = visit(address, entry);
        if step == Step::Stop {
            break;
        }
        entry = entry.wrapping_add(1);
    }
    // SAFETY: The page table was mapped and locked above.
    unsafe { bindings::pte_unmap_unlock(first, lock) };
    step
}

/// # Safety
///
/// To be called by walk_page_range_vma() with a [`CandidateWalk`] as its private data.
unsafe extern "C" fn candidate_pmd_entry<F: FnMut(usize, Seen) -> bool>(
    pmd: *mut bindings::pmd_t,
    start: c_ulong,
    end: c_ulong,
    walk: *mut bindings::mm_walk,
) -> c_int {
    // SAFETY: The walk is valid, and its private data what `collect_candidates` has passed.
    let (state, vma) = unsafe {
        (
            &mut *(*walk).private.cast::<CandidateWalk<'_, F>>(),
            (*walk).vma,
        )
    };
    crate::kthread::cond_resched();
    // SAFETY: The walk has found the entry.
    let value = unsafe { bindings::pmdp_get_lockless(pmd) };
    // SAFETY: These functions look at the value only.
    if unsafe { !bindings::pmd_present(value) } {
        return Step::Continue.into();
    }
    // SAFETY: As above.
    if unsafe { bindings::pmd_leaf(value) } {
        // SAFETY: The entry belongs to the vma.
        let page = unsafe { bindings::ksm_get_anon_page_pmd(vma, start, pmd) };
        if let Some(page) = NonNull::new(page) {
            // SAFETY: The helper took a reference, which it passed on.
            return unsafe { state.meet_huge(start..end, page) }.into();
        }
    }
    // SAFETY: The walk has found the entry.
    let step = unsafe {
        for_each_pte(walk, pmd, start..end, |address, entry| {
            match NonNull::new(bindings::ksm_anon_page(vma, address, entry)) {
                Some(page) => state.meet(address, page),
                None => Step::Continue,
            }
        })
    };
    step.into()
}

/// # Safety
///
/// To be called by walk_page_range_vma() with [`MergedAddresses`] as its private data.
unsafe extern "C" fn merged_pmd_entry(
    pmd: *mut bindings::pmd_t,
    start: c_ulong,
    end: c_ulong,
    walk: *mut bindings::mm_walk,
) -> c_int {
    // SAFETY: The walk is valid, and its private data what `find_merged` has passed.
    let (found, vma) = unsafe { (&mut *(*walk).private.cast::<MergedAddresses>(), (*walk).vma) };
    // SAFETY: The walk has found the entry. There are no KSM pages under a huge one: those have no
    // page table to be mapped.
    let step = unsafe {
        for_each_pte(walk, pmd, start..end, |address, entry| {
            if bindings::ksm_pte_is_merged(vma, address, entry) {
                found.addresses[found.len] = address;
                found.len += 1;
            }
            match found.len < UNMERGE_BATCH {
                true => Step::Continue,
                false => Step::Stop,
            }
        })
    };
    step.into()
}
