// SPDX-License-Identifier: GPL-2.0

//! Looking pages up, and merging those that are equal.
//!
//! A mapping is in a node's list before its page table entry is changed, and leaves it after: a
//! walk from the KSM page always finds all the entries that merging has made.

#![deny(unsafe_code)]

use crate::{
    control::Ksm,
    mm::{
        address_space::{
            user_of,
            ReadLockedMm,
            UserMm, //
        },
        folio::PinnedPage,
        ksm_folio::OwnedAnchor,
        share::{
            self,
            KsmPage, //
        },
        walk::{
            collect_candidates,
            Candidate,
            Met, //
            MmapLock,
        }, //
    },
    pool::{
        Handle,
        Pool, //
    },
    rbtree::Verdict,
    rmap_item::{
        Place,
        RmapItem,
        TrackedMm, //
    },
    scan::Scanner,
    stable_node::{
        Mapping,
        StableNode, //
    },
    stable_tree::{
        Lookup,
        StableTree, //
    },
    unmerge::unmerge_range,
    unstable_tree::Outcome, //
};
use core::cmp::Ordering;
use kernel::{
    mm::MmWithUser,
    page::PAGE_SIZE,
    prelude::*, //
};

/// How an attempt to merge ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MergeOutcome {
    Merged,
    /// The page has changed, is in use, or there is no memory: the next scan will see.
    NotNow,
}

/// The page of an item, held together with its address space.
struct Held {
    mm: UserMm,
    page: PinnedPage,
}

impl Scanner {
    /// Merges `page` with a KSM page of the same content, if there is one; returns whether there
    /// was.
    pub(crate) fn merge_with_stable(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        page: &PinnedPage,
    ) -> bool {
        let Some(first) = self.find_stable(ksm, item, page) else {
            return false;
        };
        let limit = ksm.tunables.max_page_sharing.get();
        let node = StableTree::first_that(&self.nodes, first, |node| node.has_room(limit));
        if let Some(node) = node {
            // Its page may have gone since; then the next scan will see.
            self.merge_into(ksm, mm, item, page, node);
        }
        node.is_some()
    }

    /// Looks in the unstable tree for a page like `page`, to make them one, or leaves it there.
    pub(crate) fn meet_in_unstable(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        page: PinnedPage,
    ) {
        let mut held = None;
        let Self {
            unstable,
            items,
            mms,
            nodes,
            probe,
            ..
        } = self;
        let outcome = unstable.search_or_insert(items, item, |_, other| {
            match hold(mms, nodes, probe, other) {
                Some(other) if other.page.as_raw() != page.as_raw() => {
                    let verdict = verdict(&page, &other.page);
                    held = Some(other);
                    verdict
                }
                // Gone, merged, or one page that a fork has left in two address spaces.
                _ => Verdict::Stop,
            }
        });
        match (outcome, held) {
            (Outcome::Match(other), Some(held)) => {
                self.merge_pair(ksm, (mm, item, page), (other, held))
            }
            (Outcome::Inserted, _) => {
                self.items[item].set_place(Place::Unstable(self.pass));
                ksm.stats.pages_unshared.add(1);
            }
            _ => {}
        }
    }

    /// Makes `item`, whose page a fork has inherited, one of the mappings of `node`.
    ///
    /// The page is mapped already, so this is no matter of `max_page_sharing`.
    pub(crate) fn adopt_fork(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        node: Handle<StableNode>,
    ) {
        let address = self.items[item].address();
        let locked = ReadLockedMm::new(mm);
        if let Some(vma) = locked.mergeable_at(address) {
            // Without memory for it the mapping goes on unlisted, until the next scan.
            let _ = self.attach(ksm, node, Mapping::new(&vma, address, item));
        }
    }

    fn find_stable(
        &mut self,
        ksm: &Ksm,
        item: Handle<RmapItem>,
        page: &PinnedPage,
    ) -> Option<Handle<StableNode>> {
        let checksum = crate::forest::Keyed::checksum(&self.items[item]);
        loop {
            let found = self
                .stable
                .find(&self.nodes, checksum, |_, node| node_verdict(page, node));
            match found {
                Lookup::Match(node) => return Some(node),
                Lookup::Missing => return None,
                Lookup::Stale(node) => self.remove_stale(ksm, node),
            }
        }
    }

    /// Lets `item` map the page of `node` instead of `page`.
    fn merge_into(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        page: &PinnedPage,
        node: Handle<StableNode>,
    ) -> MergeOutcome {
        let address = self.items[item].address();
        let locked = ReadLockedMm::new(mm);
        let Some(vma) = locked.mergeable_at(address) else {
            return MergeOutcome::NotNow;
        };
        let target = self.nodes[node].anchor.as_ref().map(|a| KsmPage::of(a));
        let Some(Ok(target)) = target else {
            self.remove_stale(ksm, node);
            return MergeOutcome::NotNow;
        };
        let mapping = Mapping::new(&vma, address, item);
        if self.attach(ksm, node, mapping).is_err() {
            return MergeOutcome::NotNow;
        }
        let replaced = page
            .try_lock_single()
            .is_some_and(|old| share::replace(&vma, address, page, &old, &target).is_ok());
        if replaced {
            return MergeOutcome::Merged;
        }
        self.leave_tree(ksm, item);
        MergeOutcome::NotNow
    }

    /// Makes a KSM page of `page`, and lets the other item map it too.
    fn merge_pair(
        &mut self,
        ksm: &Ksm,
        (mm, item, page): (&MmWithUser, Handle<RmapItem>, PinnedPage),
        (other, held): (Handle<RmapItem>, Held),
    ) {
        if core::ptr::eq(page.folio(), held.page.folio()) {
            // Parts of one large folio, of which it can be split by one holder only: so split it,
            // and let the next scan merge what comes of it.
            drop(held);
            drop(page.try_lock_single());
            return;
        }
        let Some(node) = self.promote(ksm, mm, item, &page) else {
            return;
        };
        self.insert_node(ksm, node, &page);
        self.leave_tree(ksm, other);
        let outcome = self.merge_into(ksm, &held.mm, other, &held.page, node);
        drop(page);
        if outcome == MergeOutcome::NotNow {
            self.demote(ksm, mm, item, node);
        }
    }

    /// Makes `page` the KSM page of a new node, which is not in the tree yet.
    fn promote(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        page: &PinnedPage,
    ) -> Option<Handle<StableNode>> {
        let address = self.items[item].address();
        let checksum = crate::forest::Keyed::checksum(&self.items[item]);
        let locked = ReadLockedMm::new(mm);
        let vma = locked.mergeable_at(address)?;
        let mapping = Mapping::new(&vma, address, item);
        let node = self.new_node(ksm, checksum, mapping)?;
        let made = self.nodes[node].anchor.as_ref().is_some_and(|anchor| {
            page.try_lock_single()
                .is_some_and(|single| share::make_ksm(&vma, address, &single, anchor).is_ok())
        });
        if !made {
            self.forget_node(ksm, node);
            return None;
        }
        self.note_attached(ksm, node, item, 0);
        Some(node)
    }

    /// A node with one mapping that has no page yet.
    ///
    /// As long as there are nodes the module cannot be unloaded.
    fn new_node(
        &mut self,
        ksm: &Ksm,
        checksum: u32,
        mapping: Mapping,
    ) -> Option<Handle<StableNode>> {
        if self.nodes.len() == 0 && !ksm.module.hold() {
            return None;
        }
        let node = self.nodes.insert(StableNode::new(checksum), GFP_KERNEL);
        let Ok(node) = node else {
            if self.nodes.len() == 0 {
                ksm.module.release();
            }
            return None;
        };
        match OwnedAnchor::new(node, mapping) {
            Ok(anchor) => {
                self.nodes[node].anchor = Some(anchor);
                Some(node)
            }
            Err(_) => {
                self.forget_node(ksm, node);
                None
            }
        }
    }

    fn insert_node(&mut self, ksm: &Ksm, node: Handle<StableNode>, page: &PinnedPage) {
        while let Err(stale) = self
            .stable
            .insert(&mut self.nodes, node, |_, other| node_verdict(page, other))
        {
            self.remove_stale(ksm, stale);
        }
    }

    /// Undoes [`Scanner::promote`] for a page that found nobody to share it.
    fn demote(
        &mut self,
        ksm: &Ksm,
        mm: &MmWithUser,
        item: Handle<RmapItem>,
        node: Handle<StableNode>,
    ) {
        let address = self.items[item].address();
        let locked = ReadLockedMm::new(mm);
        if let Some(vma) = locked.mergeable_at(address) {
            // Without memory for a copy it stays a KSM page with one mapping, which is no harm.
            let _ = unmerge_range(vma.vma(), address..address + PAGE_SIZE, MmapLock::Read);
        }
        drop(locked);
        self.remove_if_unmapped(ksm, node);
    }
}

/// Where `page` stands, seen from a page with the same checksum.
fn verdict(page: &PinnedPage, other: &PinnedPage) -> Verdict {
    match page.compare(other) {
        Ordering::Less => Verdict::Before,
        Ordering::Equal => Verdict::Match,
        Ordering::Greater => Verdict::After,
    }
}

fn node_verdict(page: &PinnedPage, node: &StableNode) -> Verdict {
    match node.anchor.as_ref().map(|anchor| anchor.page()) {
        Some(Ok(other)) => verdict(page, &other),
        _ => Verdict::Stop,
    }
}

/// Takes a reference to the page of `item`, if it has one that may be merged.
fn hold(
    mms: &Pool<TrackedMm>,
    nodes: &Pool<StableNode>,
    probe: &mut KVec<Candidate>,
    item: &RmapItem,
) -> Option<Held> {
    let mm = user_of(mms[item.mm()?].slot()?.mm())?;
    let address = item.address();
    let locked = ReadLockedMm::new(&mm);
    let vma = locked.mergeable_at(address)?;
    collect_candidates(&vma, address..address + PAGE_SIZE, nodes, 1, probe);
    drop(locked);
    match probe.pop()?.page {
        Met::Anonymous(page) => Some(Held { mm, page }),
        Met::Ksm(_) => None,
    }
}
