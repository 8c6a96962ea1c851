// SPDX-License-Identifier: GPL-2.0

//! The tie between a KSM folio and its stable node.
//!
//! The `mapping` of a KSM folio points to its node's [`Anchor`], and the anchor names the folio by
//! page frame number without a reference: reclaim may free the folio at any time. So the way
//! from the node to the folio takes a speculative reference and then looks whether the folio still
//! points back; if not, the node is stale.
//!
//! # Invariants
//!
//! A folio points to an anchor only between [`bind`] and the folio's end, [`KsmFolio::release`],
//! [`keep_last`] or migration, and in that time the anchor is not freed: [`OwnedAnchor`] sees to it
//! when dropped. While [`keep_last`] has taken all references from the folio, its anchor may be freed
//! already: nobody follows the pointer then, as that takes a reference or the folio's lock.
//!
//! The anchor that a folio points to belongs to a node in the scanner's pool, and there is one pool
//! as long as the module is loaded: a borrow of that pool keeps all of them.

use crate::{
    containers::handle::Handle,
    kernel_api::gfp,
    mm::{
        folio::{
            Folio,
            LockedFolio, //
        },
        ksm_page::{
            ids::NodeId,
            mappings::Mappings,
            node_state::NodeState, //
        },
        page::PinnedPage,
        page_table::{
            MappedPage,
            MergedEntry, //
        }, //
    },
    testing::{
        race_delay,
        race_window::RaceWindow, //
    }, //
};
use core::{
    cell::UnsafeCell,
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            smp_mb,
            Read,
            Write, //
        }, //
    }, //
};

/// No folio has this page frame number.
const UNBOUND: usize = usize::MAX;

/// A stable node as seen from its folio.
///
/// Aligned so that the flags in the low bits of a `mapping` have room.
#[repr(align(8))]
pub(crate) struct Anchor {
    pfn: Atomic<usize>,
    node: NodeId,
    pub(crate) state: NodeState,
    /// The mappings of the folio; guarded by the folio's lock. See [`KsmFolio`].
    mappings: UnsafeCell<Mappings>,
}

const _: () = assert!(size_of::<Anchor>() <= 64);

// SAFETY: Only the holder of the lock of the folio that points here touches `mappings`, or the owner
// when no folio does.
unsafe impl Sync for Anchor {}

/// There is no folio any more that points to a node.
pub(crate) struct Stale;

impl Anchor {
    /// The node's name in the pool of `ksmd`.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// The page frame number of the folio, which may have been freed or migrated since.
    pub(crate) fn pfn(&self) -> usize {
        self.pfn.load(Relaxed)
    }

    /// Parts the anchor from a folio that lay in `range`, if its folio did; returns whether.
    #[cfg(CONFIG_MEMORY_HOTREMOVE)]
    pub(crate) fn forget_offline(&self, range: &crate::mm::hotplug::OfflineRange) -> bool {
        let gone = range.contains(self.pfn());
        if gone {
            self.pfn.store(UNBOUND, Relaxed);
        }
        gone
    }

    /// Takes a reference to the node's folio.
    pub(crate) fn page(&self) -> Result<PinnedPage, Stale> {
        loop {
            let pfn = self.pfn();
            if pfn == UNBOUND {
                return Err(Stale);
            }
            if let Some(page) = self.try_get(pfn) {
                return Ok(page);
            }
            // Pairs with the barrier in `migrate`: who sees that the old folio does not point here
            // any more also sees the new page frame number.
            smp_mb(Read);
            if self.pfn() == pfn {
                return Err(Stale);
            }
        }
    }

    /// Calls `f` with the node's folio while its lock is held; sleeps.
    pub(crate) fn with_folio<R>(&self, f: impl FnOnce(KsmFolio<'_>) -> R) -> Result<R, Stale> {
        loop {
            let page = self.page()?;
            race_delay::pause(RaceWindow::Referenced);
            let mut locked = page.folio().lock();
            if let Some(folio) = self.target(&mut locked) {
                return Ok(f(folio));
            }
        }
    }

    /// The folio of `locked`, if it is the node's.
    ///
    /// There is one such at a time for a lock, which its way to the mappings relies on.
    pub(crate) fn target<'a>(&'a self, locked: &'a mut LockedFolio<'_>) -> Option<KsmFolio<'a>> {
        // INVARIANT: The lock is held for as long as the result lives, and the folio points here.
        // SAFETY: The folio is alive.
        let points_here = unsafe { self.is_target_of(locked.folio().as_raw()) };
        points_here.then(|| KsmFolio {
            folio: locked.folio(),
            anchor: self,
        })
    }

    fn try_get(&self, pfn: usize) -> Option<PinnedPage> {
        // SAFETY: The page frame number was that of a folio; memory that goes offline is first
        // searched for nodes.
        let folio = unsafe { bindings::pfn_folio(pfn) };
        // SAFETY: As above. The value is looked at again once the folio cannot be freed.
        if !unsafe { self.is_target_of(folio) } {
            return None;
        }
        race_delay::spin(RaceWindow::Peeped);
        // SAFETY: As above.
        while !unsafe { bindings::folio_try_get(folio) } {
            // No references: the folio is being freed, and the node stale; but in the swap cache,
            // migration may have frozen the count for a moment.
            // SAFETY: As above.
            if !unsafe { bindings::folio_test_swapcache(folio) } {
                return None;
            }
            core::hint::spin_loop();
        }
        // SAFETY: A reference was just taken. If it is one to the node's folio, that is a single
        // page; if not, it is given back as one to any folio is.
        let page = unsafe { PinnedPage::from_raw(NonNull::new_unchecked(folio.cast())) };
        // SAFETY: The folio is alive.
        unsafe { self.is_target_of(page.folio().as_raw()) }.then_some(page)
    }

    /// Whether the `mapping` of `folio` points here.
    ///
    /// # Safety
    ///
    /// `folio` must lie in the memory map; if it may have been freed, it is another's folio that is
    /// looked at.
    unsafe fn is_target_of(&self, folio: *mut bindings::folio) -> bool {
        // SAFETY: The caller vouches for it; the pointer that is read is compared only.
        let mapping = unsafe { bindings::ksm_folio_mapping(folio) };
        mapping == tagged(self)
    }
}

/// The `mapping` of a folio that points to `anchor`, which may be null.
fn tagged(anchor: *const Anchor) -> *mut c_void {
    anchor
        .cast_mut()
        .cast::<c_void>()
        .wrapping_byte_add(bindings::FOLIO_MAPPING_KSM as usize)
}

/// The meaning of the `mapping` of a folio for KSM.
pub(crate) enum Tie<'a> {
    /// It is no KSM folio.
    Missing,
    /// It is one that has no anchor yet.
    Unbound,
    Bound(&'a Anchor),
}

/// How `folio` is tied to KSM; the anchor is not looked at.
///
/// # Safety
///
/// The folio must not be freed, migrated or released meanwhile, nor the anchor's node removed,
/// for the duration of 'a: its lock is held, or the scan mutex and a page-table lock under which
/// the folio is mapped.
unsafe fn tie_of<'a>(folio: &'a Folio) -> Tie<'a> {
    let (anchor, flags) = folio.mapping();
    if flags != bindings::FOLIO_MAPPING_KSM {
        return Tie::Missing;
    }
    // SAFETY: By the invariants of this file a KSM folio points to an anchor that is not freed
    // while it does, which the caller sees to.
    unsafe { anchor.cast::<Anchor>().as_ref() }.map_or(Tie::Unbound, Tie::Bound)
}

/// Owns every anchor that a folio points to, and drops none while it is borrowed.
///
/// By the invariants of this file that is the pool of stable nodes, and nothing else.
pub(crate) trait AnchorOwner {}

/// How the folio of a mapped page is tied to KSM. `_owner` keeps its anchor.
#[inline]
pub(crate) fn tie_of_mapped<'a>(page: &MappedPage<'a>, _owner: &'a impl AnchorOwner) -> Tie<'a> {
    // SAFETY: The page stays mapped, under the lock of its page table. By the invariants of this file
    // `_owner` owns its anchor, and does not drop it.
    unsafe { tie_of(page.folio()) }
}

/// Lets who maps a KSM page have it for its own if nobody else uses it; returns whether.
///
/// The folio's node is stale from then on, as if the folio had been freed.
pub(crate) fn keep_last(entry: &MergedEntry<'_>) -> bool {
    let (vma, address) = (entry.vma().as_raw(), entry.address());
    let Some(folio) = entry.folio() else {
        return false;
    };
    // SAFETY: The address maps the KSM page for as long as the entry is borrowed. All users of the
    // content of a KSM folio have a reference, and then the helper refuses; it takes the folio's lock.
    unsafe { bindings::ksm_folio_give_away(folio.as_raw(), vma, address) }
}

/// A KSM folio whose lock is held, together with the anchor it points to.
///
/// The lock is exclusive, so `&mut KsmFolio` is the one way to the list of mappings at a time.
///
/// # Invariants
///
/// The lock of `folio` is held for as long as this exists, and `folio` points to `anchor`.
pub(crate) struct KsmFolio<'a> {
    folio: &'a Folio,
    anchor: &'a Anchor,
}

impl<'a> KsmFolio<'a> {
    /// `None` if `folio` is not a KSM folio with a node.
    ///
    /// # Safety
    ///
    /// The caller must hold the lock of `folio` for the duration of 'a, and use no other
    /// `KsmFolio` of it meanwhile.
    pub(crate) unsafe fn assume_locked(folio: &'a Folio) -> Option<Self> {
        // SAFETY: The caller holds the lock.
        let Tie::Bound(anchor) = (unsafe { tie_of(folio) }) else {
            return None;
        };
        // INVARIANT: See above.
        Some(Self { folio, anchor })
    }

    pub(crate) fn folio(&self) -> &'a Folio {
        self.folio
    }

    /// Where the folio is, or may be, mapped.
    pub(crate) fn mappings(&self) -> &Mappings {
        // SAFETY: By the type invariant the folio's lock is held, which guards the list.
        unsafe { &*self.anchor.mappings.get() }
    }

    /// As [`KsmFolio::mappings`], to be changed.
    pub(crate) fn mappings_mut(&mut self) -> &mut Mappings {
        // SAFETY: As in `mappings`; `&mut self` excludes others who come by this lock.
        unsafe { &mut *self.anchor.mappings.get() }
    }

    /// Parts the folio from its node, which is stale from then on.
    ///
    /// Refuses as long as the folio is mapped.
    pub(crate) fn release(self) -> Result<(), Self> {
        if self.folio.is_mapped() {
            return Err(self);
        }
        // SAFETY: The folio is alive and locked. Nothing maps it, and without a node it will not
        // be found to be mapped again.
        unsafe { bindings::ksm_folio_set_mapping(self.folio.as_raw(), tagged(core::ptr::null())) };
        Ok(())
    }

    /// Lets `new` take the place of this folio.
    ///
    /// # Safety
    ///
    /// `new` must be a copy of this folio that is locked and has the same `mapping`.
    pub(crate) unsafe fn migrate(self, new: &Folio) {
        self.anchor.pfn.store(new.pfn(), Relaxed);
        race_delay::spin(RaceWindow::Migrating);
        // Pairs with the barrier in `Anchor::page`.
        smp_mb(Write);
        // SAFETY: The old folio is alive and locked.
        unsafe { bindings::ksm_folio_set_mapping(self.folio.as_raw(), tagged(core::ptr::null())) };
    }
}

/// Makes a folio the KSM folio of a node that has had none.
///
/// # Safety
///
/// Every page table entry that maps the folio must be write-protected, and none exclusive.
pub(crate) unsafe fn bind(locked: &LockedFolio<'_>, anchor: &Anchor) {
    let folio = locked.folio();
    anchor.pfn.store(folio.pfn(), Relaxed);
    // SAFETY: The folio is alive and locked, and the caller vouches for the rest.
    unsafe {
        bindings::ksm_folio_set_mapping(folio.as_raw(), tagged(anchor));
        bindings::folio_mark_accessed(folio.as_raw());
    }
    mark_dirty(locked);
}

/// Has reclaim write a folio to swap; it drops clean anonymous pages.
///
/// To be called after each mapping that a KSM folio gets. The only process that mapped it before may have
/// called `madvise(MADV_FREE)`, which makes a folio clean that has no other mapping, and looks at
/// their number under the folio's lock. Until now, the reference that the lock needs has kept it.
pub(crate) fn mark_dirty(locked: &LockedFolio<'_>) {
    let folio = locked.folio().as_raw();
    // SAFETY: The folio is alive and locked.
    unsafe {
        if !bindings::folio_test_dirty(folio) {
            bindings::folio_mark_dirty(folio);
        }
    }
}

/// The ownership of an anchor.
///
/// # Invariants
///
/// `anchor` comes from a `KBox`, and is freed by this object alone.
pub(crate) struct OwnedAnchor {
    anchor: NonNull<Anchor>,
}

// SAFETY: An anchor may be freed by any thread.
unsafe impl Send for OwnedAnchor {}

impl OwnedAnchor {
    /// An anchor for `node` that no folio points to, with these `mappings`.
    pub(crate) fn new(node: NodeId, state: NodeState, mappings: Mappings) -> Result<Self> {
        let anchor = KBox::new(
            Anchor {
                pfn: Atomic::new(UNBOUND),
                node,
                state,
                mappings: UnsafeCell::new(mappings),
            },
            gfp::for_merge(),
        )?;
        // INVARIANT: The pointer comes from a `KBox` that is given up here.
        Ok(Self {
            // SAFETY: A box is never null.
            anchor: unsafe { NonNull::new_unchecked(KBox::into_raw(anchor)) },
        })
    }

    /// Takes the mappings out of the anchor, if no folio points to it any more.
    pub(crate) fn take_mappings(&mut self) -> Option<Mappings> {
        if self.page().is_ok() {
            return None;
        }
        // SAFETY: By the invariants of this file, nobody follows a pointer to the anchor from a
        // folio that cannot be had any more, and only `bind` can make another point here, for which
        // the anchor has to be borrowed. So this is the only access.
        Some(core::mem::take(unsafe { &mut *self.mappings.get() }))
    }
}

impl Deref for OwnedAnchor {
    type Target = Anchor;

    fn deref(&self) -> &Anchor {
        // SAFETY: By the type invariant the anchor is alive.
        unsafe { self.anchor.as_ref() }
    }
}

impl Drop for OwnedAnchor {
    fn drop(&mut self) {
        if self.page().is_ok() {
            // Losing these bytes is better than what a walk from the folio would find in them.
            pr_err!("stable node dropped before its page\n");
            return;
        }
        // SAFETY: By the type invariant this is the box of `new`, and no folio points to it.
        drop(unsafe { KBox::from_raw(self.anchor.as_ptr()) });
    }
}

/// Makes a page of a KUnit suite, which nothing maps, the KSM page of the node of `anchor`.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn bind_page(page: &PinnedPage, anchor: &Anchor) {
    let locked = page.folio().lock();
    // SAFETY: There is no page table entry that maps the page.
    unsafe { bind(&locked, anchor) };
}

#[kernel::macros::kunit_tests(ksm_rs_ksm_folio)]
mod tests {
    use super::*;
    use crate::mm::{
        ksm_page::ids::PartitionId,
        page::fresh, //
    };

    fn anchor(number: u32) -> Result<OwnedAnchor> {
        let node = Handle::from_raw(number).ok_or(EINVAL)?;
        OwnedAnchor::new(
            node,
            NodeState::new(PartitionId::default()),
            Mappings::default(),
        )
    }

    #[test]
    fn a_new_node_is_stale() -> Result {
        let mut anchor = anchor(1)?;
        assert!(anchor.page().is_err());
        assert!(anchor.with_folio(|_| ()).is_err());
        assert!(anchor.take_mappings().is_some());
        Ok(())
    }

    #[test]
    fn a_node_finds_its_page_until_they_part() -> Result {
        let (anchor, page) = (anchor(2)?, fresh::page(5)?);
        bind_page(&page, &anchor);
        let is_tied = |page: &PinnedPage| {
            let locked = page.folio().lock();
            // SAFETY: The lock is held.
            let tie = unsafe { tie_of(locked.folio()) };
            matches!(tie, Tie::Bound(its) if core::ptr::eq(its, &*anchor))
        };
        assert!(is_tied(&page));
        assert!(anchor
            .page()
            .is_ok_and(|found| found.as_raw() == page.as_raw()));
        let released = anchor.with_folio(|folio| folio.release().is_ok());
        assert!(matches!(released, Ok(true)));
        assert!(!is_tied(&page));
        assert!(anchor.page().is_err());
        Ok(())
    }

    #[test]
    fn a_freed_page_leaves_its_node_stale() -> Result {
        let (anchor, page) = (anchor(3)?, fresh::page(5)?);
        bind_page(&page, &anchor);
        drop(page);
        assert!(anchor.page().is_err());
        Ok(())
    }

    #[test]
    fn a_node_in_use_keeps_its_mappings() -> Result {
        let (mut anchor, page) = (anchor(4)?, fresh::page(5)?);
        bind_page(&page, &anchor);
        assert!(anchor.take_mappings().is_none());
        drop(page);
        assert!(anchor.take_mappings().is_some());
        Ok(())
    }

    #[test]
    fn a_node_follows_its_page_when_that_migrates() -> Result {
        let (anchor, old, new) = (anchor(5)?, fresh::page(5)?, fresh::page(5)?);
        bind_page(&old, &anchor);
        let (old_lock, new_lock) = (old.folio().lock(), new.folio().lock());
        // SAFETY: Both folios are locked, and `new` gets the same mapping as migration would give
        // it.
        unsafe {
            bindings::ksm_folio_set_mapping(new.folio().as_raw(), tagged(&raw const *anchor));
            if let Some(folio) = KsmFolio::assume_locked(old_lock.folio()) {
                folio.migrate(new.folio());
            }
        }
        drop((old_lock, new_lock));
        assert!(anchor
            .page()
            .is_ok_and(|found| found.as_raw() == new.as_raw()));
        drop((old, new));
        assert!(anchor.page().is_err());
        Ok(())
    }
}
