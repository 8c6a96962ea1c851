// SPDX-License-Identifier: GPL-2.0

//! The two changes of a page table entry that make pages shared.
//!
//! Both begin by emptying the entry and flushing it from all TLBs; a write protection does not if
//! nobody could write the page anyway. From then on nobody can write the page through it, nor take a
//! new reference; a reference that was there before (O_DIRECT, a pipe, a device) shows in the count,
//! and the entry is put back as it was.
//!
//! # Invariants
//!
//! A KSM page is mapped read-only, by every entry: no byte of it changes while anybody has a reference
//! to it. It is dirty once it has a second mapping, so that none is lost to reclaim: the process
//! that has the only mapping can make it clean. A page is replaced only by one that was found equal while
//! neither could be written.

use crate::{
    mm::{
        folio::LockedFolio,
        ksm_page::ksm_folio::{
            self,
            Anchor, //
        },
        notifier::with_page_invalidated,
        page::{
            Page,
            PinnedPage, //
        },
        pte::{
            Pte,
            PteGuard, //
        },
        vma::MergeableVma, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use core::ptr::NonNull;
use kernel::bindings;

/// Why an entry was left as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It does not map the page any more.
    Changed,
    /// Somebody else uses the page.
    InUse,
    /// The pages are not equal.
    Different,
}

/// A page that nobody can write any more, and that can become a KSM page.
///
/// # Invariants
///
/// Every entry that maps the page of `locked` is write-protected, and not exclusive. Since the mmap
/// lock of `vma` was taken, an entry of `vma` has mapped the page, which names `anon_vma`.
pub(crate) struct Protected<'a> {
    vma: &'a MergeableVma<'a>,
    locked: &'a LockedFolio<'a>,
    anon_vma: NonNull<bindings::anon_vma>,
}

/// Write-protects the page that `address` maps, whose lock is `locked`.
pub(crate) fn protect<'a>(
    vma: &'a MergeableVma<'_>,
    address: usize,
    locked: &'a LockedFolio<'_>,
) -> Result<Protected<'a>, Refusal> {
    with_page_invalidated(vma, address, || write_protect(vma, address, locked))?;
    race_delay::pause(RaceWindow::Protected);
    // INVARIANT: The entry was just write-protected. If there are others, they are so since the fork
    // that made them. While the page is locked, it goes on to name its anon_vma.
    Ok(Protected {
        vma,
        locked,
        anon_vma: locked.folio().anon_vma().ok_or(Refusal::Changed)?,
    })
}

impl Protected<'_> {
    /// The vma, as one of all those that may map the page: its own anon_vma does not lead to those
    /// that it was forked from.
    pub(crate) fn vma(&self) -> MergeableVma<'_> {
        // SAFETY: A vma is linked to the anon_vma of a page that it maps, and stays so for as long as
        // the mmap lock is held.
        unsafe { self.vma.through(self.anon_vma) }
    }

    /// Makes the page the KSM page of the node of `anchor`.
    pub(crate) fn bind(self, anchor: &Anchor) {
        // SAFETY: By the type invariant no entry can be written through.
        unsafe { ksm_folio::bind(self.locked, anchor) };
    }
}

/// Makes `address` map `target` instead of `page`, whose lock is `old`.
pub(crate) fn replace(
    vma: &MergeableVma<'_>,
    address: usize,
    page: &Page,
    old: &LockedFolio<'_>,
    target: Target<'_>,
) -> Result<(), Refusal> {
    with_page_invalidated(vma, address, || {
        let mut entry = entry_of(vma, address, old)?;
        let was = entry.clear_flush();
        race_delay::spin(RaceWindow::Emptied);
        let allowed = check_users(vma, was, old)
            .and_then(|()| match target.has_content_of(page) {
                true => Ok(()),
                false => Err(Refusal::Different),
            })
            .and_then(|()| {
                race_delay::spin(RaceWindow::Compared);
                give_up_exclusivity(old)
            });
        match allowed {
            Ok(()) => swap_pages(&mut entry, was, old, target),
            // SAFETY: The entry still has its reference and reverse mapping.
            Err(_) => unsafe { entry.set(was) },
        }
        allowed
    })
}

/// A KSM page: its content does not change as long as the reference is held.
pub(crate) struct KsmPage(PinnedPage);

impl KsmPage {
    /// Takes the page of a node.
    pub(crate) fn of(anchor: &Anchor) -> Result<Self, ksm_folio::Stale> {
        anchor.page().map(Self)
    }

    /// `page`, which has become that of a node.
    pub(super) fn bound(page: PinnedPage) -> Self {
        Self(page)
    }

    pub(crate) fn page(&self) -> &Page {
        &self.0
    }
}

/// The replacement of a page.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Ksm {
        page: &'a KsmPage,
        /// The page that the CPU is to fetch while the contents are compared.
        next: &'a Page,
    },
    /// The kernel's page of zeros, which has no reverse mappings.
    Zero,
}

impl Target<'_> {
    fn has_content_of(self, page: &Page) -> bool {
        match self {
            Target::Ksm { page: ksm, next } => page.equals(&ksm.0, next),
            Target::Zero => page.is_zero(),
        }
    }
}

fn entry_of<'a>(
    vma: &'a MergeableVma<'a>,
    address: usize,
    locked: &LockedFolio<'_>,
) -> Result<PteGuard<'a>, Refusal> {
    PteGuard::lock(vma, address)
        .filter(|entry| entry.get().maps(locked.folio()))
        .ok_or(Refusal::Changed)
}

/// Whether the page of `locked` is marked as belonging to one page table entry alone.
fn is_exclusive(locked: &LockedFolio<'_>) -> bool {
    // SAFETY: The folio is alive, and a single page.
    unsafe { bindings::ksm_page_anon_exclusive(locked.folio().as_raw().cast()) }
}

/// Whether the page could be written through the entry `pte`, or could a moment ago.
fn may_be_written(vma: &MergeableVma<'_>, pte: Pte, locked: &LockedFolio<'_>) -> bool {
    pte.is_writable()
        || pte.is_dirty()
        || is_exclusive(locked)
        // SAFETY: The mm is alive.
        || unsafe { bindings::mm_tlb_flush_pending(vma.mm_raw()) }
}

/// A page that cannot be written may have any number of readers.
fn check_users(vma: &MergeableVma<'_>, was: Pte, locked: &LockedFolio<'_>) -> Result<(), Refusal> {
    if !may_be_written(vma, was, locked) || locked.folio().has_no_other_user(locked) {
        Ok(())
    } else {
        Err(Refusal::InUse)
    }
}

/// Takes the mark of exclusivity from a page whose entry is empty; refuses if the page is pinned.
fn give_up_exclusivity(locked: &LockedFolio<'_>) -> Result<(), Refusal> {
    let folio = locked.folio().as_raw();
    // SAFETY: The folio is alive and a single page, and its page table entry has been cleared and
    // flushed.
    if is_exclusive(locked)
        && unsafe { bindings::folio_try_share_anon_rmap_pte(folio, folio.cast()) } != 0
    {
        return Err(Refusal::InUse);
    }
    Ok(())
}

fn mark_dirty_if(was: Pte, locked: &LockedFolio<'_>) {
    if was.is_dirty() {
        // SAFETY: The folio is alive and locked.
        unsafe { bindings::folio_mark_dirty(locked.folio().as_raw()) };
    }
}

fn write_protect(
    vma: &MergeableVma<'_>,
    address: usize,
    locked: &LockedFolio<'_>,
) -> Result<(), Refusal> {
    let mut entry = entry_of(vma, address, locked)?;
    if !may_be_written(vma, entry.get(), locked) {
        return Ok(());
    }
    let was = entry.clear_flush();
    let allowed = check_users(vma, was, locked).and_then(|()| give_up_exclusivity(locked));
    let now = match allowed {
        Ok(()) => {
            mark_dirty_if(was, locked);
            was.write_protected()
        }
        Err(_) => was,
    };
    // SAFETY: The entry still has its reference and reverse mapping.
    unsafe { entry.set(now) };
    allowed
}

/// Fills the empty `entry` with the target in place of the old page.
fn swap_pages(entry: &mut PteGuard<'_>, was: Pte, old: &LockedFolio<'_>, target: Target<'_>) {
    mark_dirty_if(was, old);
    // SAFETY: The entry was emptied and flushed. The old page is locked, both are single ones.
    unsafe {
        match target {
            Target::Ksm { page, .. } => entry.map_merged(was, old.folio(), page.0.folio()),
            Target::Zero => entry.map_zeros(was, old.folio()),
        }
    }
}
