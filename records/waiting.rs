// SPDX-License-Identifier: GPL-2.0

//! Pages that are not merged: their checksums, and their places in the unstable tree.

#![deny(unsafe_code)]

use super::{
    node_domains::verdict_of_domains,
    partition::Partition,
    registry::MmSlot,
    stable_node::StableNode,
    unstable_node::UnstableNode,
    Records, //
};
use crate::{
    containers::{
        pool::Pool,
        rbtree::Verdict,
        sharded_tree::Keyed, //
    },
    kernel_api::gfp,
    mm::{
        domain::{
            Domain,
            DomainRule, //
        },
        ksm_page::{
            ids::{
                Item,
                ItemId, //
            },
            ksm_folio::AnchorOwner, //
        },
        page::Page, //
    },
    page::checksum,
    rmap_item::{
        History,
        Place,
        RmapItem,
        TrackedMm, //
    },
    unstable_tree::Outcome, //
};
use kernel::{
    alloc::AllocError,
    sync::Arc, //
};

/// After so many full scans a page that waits in the unstable tree looks for its equals anew.
///
/// A page that has not changed stays where it is, and costs no look-up. But two equal pages can
/// stand there side by side: one was something else for a moment, when the other looked for it.
pub(super) const RENEWAL_SCANS: u32 = 8;

/// Where the pages of items are, while the unstable tree is being searched.
pub(crate) struct Locations<'a> {
    items: &'a Pool<RmapItem>,
    spaces: &'a Pool<TrackedMm>,
    nodes: &'a Pool<StableNode>,
    domain_rule: DomainRule,
}

impl Locations<'_> {
    /// The address space of `item`, which is not merged, and the address there.
    pub(crate) fn of(&self, item: ItemId) -> Option<(&Arc<MmSlot>, usize)> {
        let item = &self.items[item];
        Some((self.spaces[item.space()?].slot()?, item.address()))
    }

    /// The owner of all stable nodes.
    pub(crate) fn nodes(&self) -> &impl AnchorOwner {
        self.nodes
    }

    /// The domain of all pages that are compared, and which domains count.
    pub(crate) fn domain_of(&self, item: ItemId) -> (Domain, DomainRule) {
        (domain_of(self.items, self.spaces, item), self.domain_rule)
    }
}

/// The domain of the page of `item`, which is not merged.
pub(super) fn domain_of(items: &Pool<RmapItem>, spaces: &Pool<TrackedMm>, item: ItemId) -> Domain {
    let space = items[item].space().map(|space| &spaces[space]);
    let slot = space.and_then(TrackedMm::slot);
    slot.map_or(Domain::COMMON, |slot| slot.domain())
}

impl Records {
    /// Where `item` stands, beside its list.
    pub(crate) fn place(&self, item: ItemId) -> Place {
        self.items[item].place()
    }

    /// The address of the page of `item`.
    pub(crate) fn address(&self, item: ItemId) -> usize {
        self.items[item].address()
    }

    /// The history of the page of `item`, which is not merged.
    pub(crate) fn history(&self, item: ItemId) -> History {
        self.items[item].history()
    }

    /// Gives the page of `item`, which is not merged, the history that it had before an attempt.
    pub(crate) fn restore_history(&mut self, item: ItemId, history: History) {
        self.items[item].set_history(history);
    }

    /// Lets the page of `item`, which is not merged, have a checksum, and takes it out of where it
    /// cannot stand any more.
    ///
    /// # Errors
    ///
    /// Fails without memory for the checksum.
    pub(crate) fn make_searchable(&mut self, item: ItemId) -> Result<(), AllocError> {
        // A page that has moved to another NUMA node belongs into another tree.
        if self.partitions.by_node() || self.place(item) != Place::Unstable {
            self.leave_tree(item);
        }
        if self.has_checksum(item) {
            return Ok(());
        }
        let new = UnstableNode::new(checksum::UNKNOWN);
        self.unstable_nodes.put(item, new, gfp::for_item())
    }

    /// Whether the page of `item` may have a checksum: it is not merged.
    pub(crate) fn has_checksum(&self, item: ItemId) -> bool {
        self.unstable_nodes.contains(item)
    }

    /// The last checksum of the page of `item`, which is not merged.
    pub(crate) fn checksum(&self, item: ItemId) -> u32 {
        self.unstable_nodes[item].checksum()
    }

    /// Notes the checksum of the page of `item`, which is not merged; returns whether it is that of
    /// the last time.
    pub(crate) fn note_checksum(&mut self, item: ItemId, checksum: u32) -> bool {
        let is_unchanged = self.checksum(item) == checksum;
        if !is_unchanged {
            // In a tree it stands under its checksum.
            self.leave_tree(item);
            self.unstable_nodes[item].set_checksum(checksum);
            self.items[item].forget_equals();
        }
        is_unchanged
    }

    /// Forgets the checksum of a page that is merged or gone, if it has one.
    pub(crate) fn forget_checksum(&mut self, item: ItemId) {
        if self.has_checksum(item) {
            self.unstable_nodes.remove(item);
        }
    }

    /// Whether the page of `item`, which waits in the unstable tree, is to look for its equals anew.
    pub(crate) fn is_to_be_renewed(&self, item: ItemId, smart_scan: bool) -> bool {
        // The smart scan seldom looks at old pages. Of all others, each scan renews its share.
        smart_scan && self.items[item].is_old()
            || self.scans.wrapping_add(item.raw()) % RENEWAL_SCANS == 0
    }

    /// Searches the unstable tree for `page`, whose item waits there from now on if there is no other
    /// like it.
    ///
    /// `compare` says where the page stands, seen from that of an item with the same checksum in the same
    /// domain.
    pub(crate) fn search_or_wait(
        &mut self,
        item: ItemId,
        page: &Page,
        mut compare: impl FnMut(ItemId, &Locations<'_>) -> Verdict,
    ) -> Outcome<Item> {
        let partition = self.partitions.of(page);
        let locations = Locations {
            items: &self.items,
            spaces: &self.spaces,
            nodes: &self.nodes,
            domain_rule: self.domain_rule,
        };
        let domain = domain_of(&self.items, &self.spaces, item);
        let unstable = &mut self.partitions.get(partition).unstable;
        let outcome = unstable.search_or_insert(&mut self.unstable_nodes, item, |other, _| {
            let others = domain_of(locations.items, locations.spaces, other);
            verdict_of_domains(domain, others).unwrap_or_else(|| compare(other, &locations))
        });
        if matches!(outcome, Outcome::Inserted) {
            self.items[item].note_waiting();
            self.items[item].note_no_equal();
            self.counters.pages_unshared.add(1);
        }
        outcome
    }

    /// Takes `item` out of the tree that it is in.
    pub(crate) fn leave_tree(&mut self, item: ItemId) {
        match self.place(item) {
            Place::Nowhere => {}
            Place::Unstable => {
                self.partitions
                    .remove_unstable(&mut self.unstable_nodes, item);
                self.items[item].note_left_tree();
                self.counters.pages_unshared.sub(1);
            }
            Place::Stable(node) => self.detach(node, item),
        }
    }

    /// Forgets all unstable trees; all items leave them.
    pub(super) fn forget_unstable_trees(&mut self) {
        self.partitions.forget_unstable();
        self.items.for_each_mut(RmapItem::note_forgotten_tree);
        self.counters.pages_unshared.set(0);
    }

    /// The trees in which the equals of `page` are.
    pub(super) fn trees_of(&self, page: &Page) -> &Partition {
        self.partitions.trees(self.partitions.of(page))
    }

    /// Asks the CPU to fetch what a search of the unstable tree begins with.
    pub(crate) fn prefetch_unstable_root(&self, item: ItemId, page: &Page) {
        let checksum = self.checksum(item);
        let trees = self.trees_of(page);
        trees.unstable.trees().prefetch_root(checksum);
    }

    /// Asks the CPU to fetch the nodes that searches of both trees will meet first.
    pub(crate) fn prefetch_tops(&self, item: ItemId, page: &Page) {
        let checksum = self.checksum(item);
        let trees = self.trees_of(page);
        trees.stable.trees().prefetch_top(&self.nodes, checksum);
        trees
            .unstable
            .trees()
            .prefetch_top(&self.unstable_nodes, checksum);
    }
}
