// SPDX-License-Identifier: GPL-2.0

//! Stable nodes come and go, and move between trees.

#![deny(unsafe_code)]

#[cfg(CONFIG_NUMA)]
use super::partition::Partitions;
use super::{
    node_domains::verdict_of_domains,
    stable_node::StableNode,
    Records, //
};
use crate::{
    containers::rbtree::Verdict,
    kernel_api::{
        gfp,
        kthread,
        module_hold::ModuleHold,
        prefetch::prefetch, //
    },
    mm::{
        ksm_page::{
            compare::{
                ksm_verdict,
                Compare, //
            },
            ids::{
                ItemId,
                NodeId,
                PartitionId, //
            },
            ksm_folio::{
                Anchor,
                AnchorOwner,
                OwnedAnchor, //
            },
            mappings::{
                Mapping,
                Mappings, //
            },
            node_state::NodeState,
            share::KsmPage, //
        },
        page::{
            Page,
            PinnedPage, //
        }, //
    },
    stable_tree::{
        Lookup,
        Reordered,
        StableEntry,
        StableTree, //
    }, //
};
use kernel::prelude::*;

/// How many nodes before its turn the anchor of a node is fetched.
const NODES_AHEAD: usize = 8;

/// The result of a search in the stable tree.
pub(crate) enum Equal {
    /// A node whose page, which comes with it, is equal and may have one more mapping.
    WithRoom(NodeId, KsmPage),
    /// Nodes whose pages are equal, and have as many mappings as they may have.
    Full,
    Missing,
}

impl Records {
    /// The owner of all stable nodes.
    pub(crate) fn nodes(&self) -> &impl AnchorOwner {
        &self.nodes
    }

    /// Whether pages of different NUMA nodes are kept apart.
    pub(crate) fn is_by_node(&self) -> bool {
        self.partitions.by_node()
    }

    /// The page of `node`, unless it is gone.
    pub(crate) fn ksm_page(&self, node: NodeId) -> Option<KsmPage> {
        let anchor = self.nodes[node].anchor.as_deref()?;
        KsmPage::of(anchor).ok()
    }

    /// The partition for `page`, where it is now.
    pub(crate) fn partition_of(&self, page: &Page) -> PartitionId {
        self.partitions.of(page)
    }

    /// Makes a stable node in `partition` for the page of `item`, or for a copy of it, of which `item` becomes
    /// the first mapping; `bind` ties the page to the node, and its result is returned with that. The node is in no
    /// tree yet, and has to be inserted before its page may go.
    ///
    /// As long as there are nodes the module cannot be unloaded.
    pub(crate) fn make_node<R>(
        &mut self,
        item: ItemId,
        mapping: Mapping,
        partition: PartitionId,
        bind: impl FnOnce(&Anchor) -> R,
    ) -> Result<(NodeId, R)> {
        if self.module_hold.is_none() {
            self.module_hold = Some(ModuleHold::new(self.module).ok_or(ENODEV)?);
        }
        let new = StableNode::new(self.checksum(item));
        let domain = self.domain_of(item);
        let node = self.nodes.insert(new, gfp::for_merge());
        let node = node.inspect_err(|_| self.release_module_if_unused())?;
        self.node_domains.note(node, domain).inspect_err(|_| {
            self.forget_node(node);
        })?;
        let anchor = anchor_with(node, partition, mapping).inspect_err(|_| {
            self.forget_node(node);
        })?;
        let bound = bind(self.nodes[node].anchor.insert(anchor));
        self.note_attached(node, item, 0);
        Ok((node, bound))
    }

    /// Whether some KSM page that may be equal to `page` has this checksum.
    pub(crate) fn has_stable(&self, page: &Page, checksum: u32) -> bool {
        self.trees_of(page).stable.has(&self.nodes, checksum)
    }

    /// Asks the CPU to fetch what a search of the stable tree begins with.
    pub(crate) fn prefetch_stable_root(&self, item: ItemId, page: &Page) {
        let checksum = self.checksum(item);
        self.trees_of(page).stable.trees().prefetch_root(checksum);
    }

    /// Looks for a KSM page that is equal to `page`, whose checksum is that of `item`; has the CPU
    /// fetch `next` meanwhile.
    ///
    /// The contents are compared as they are: nothing is locked, and `page` may be written.
    pub(crate) fn find_equal(
        &mut self,
        item: ItemId,
        (page, next): (&Page, &Page),
        how: Compare,
    ) -> Equal {
        let (checksum, domain) = (self.checksum(item), self.domain_of(item));
        loop {
            let mut equal = None;
            let stable = &self.trees_of(page).stable;
            let found = stable.find(&self.nodes, checksum, |at, node| {
                if let Some(verdict) = verdict_of_domains(domain, self.node_domains.of(at)) {
                    return verdict;
                }
                let (verdict, ksm_page) = node_verdict(page, node, next, how);
                equal = ksm_page;
                verdict
            });
            match (found, equal) {
                (Lookup::Stale(node), _) => self.remove_stale(node),
                (Lookup::Match(first), _) if self.move_to_partition(first) => {}
                (Lookup::Match(first), Some(equal)) if self.nodes[first].has_room() => {
                    return Equal::WithRoom(first, equal);
                }
                // Those behind the first have no room either.
                (Lookup::Match(_), _) => return Equal::Full,
                (Lookup::Missing, _) => return Equal::Missing,
            }
        }
    }

    /// Puts `node`, whose page is `page`, into the stable tree.
    pub(crate) fn insert_node(&mut self, node: NodeId, page: &Page) {
        let partition = self.nodes[node].partition();
        let domain = self.node_domains.of(node);
        loop {
            let stable = &mut self.partitions.get(partition).stable;
            let domains = &self.node_domains;
            match stable.insert(&mut self.nodes, node, |at, other| {
                verdict_of_domains(domain, domains.of(at))
                    .unwrap_or_else(|| node_verdict(page, other, page, Compare::Whole).0)
            }) {
                Ok(()) => break,
                Err(stale) => self.remove_stale(stale),
            }
        }
        self.count_chains();
    }

    /// Restores the order of the chain of `node`, after it got room for another mapping or lost it.
    pub(super) fn reorder_chain(&mut self, node: NodeId) {
        let partition = self.nodes[node].partition();
        let stable = &mut self.partitions.get(partition).stable;
        if stable.reorder(&mut self.nodes, node) == Reordered::Done {
            return;
        }
        match self.ksm_page(node) {
            Some(page) => {
                self.remove_from_tree(node, partition);
                self.insert_node(node, page.page());
            }
            None => self.remove_stale(node),
        }
    }

    /// Puts `node` where it belongs if its page has moved to another NUMA node; returns whether.
    pub(crate) fn move_to_partition(&mut self, node: NodeId) -> bool {
        if !self.partitions.by_node() {
            return false;
        }
        let Some(page) = self.ksm_page(node) else {
            return false;
        };
        let (old, new) = (
            self.nodes[node].partition(),
            self.partitions.of(page.page()),
        );
        if old == new {
            return false;
        }
        self.remove_from_tree(node, old);
        if let Some(anchor) = &self.nodes[node].anchor {
            anchor.state.set_partition(new);
        }
        self.insert_node(node, page.page());
        true
    }

    /// Removes a node whose page is gone, and with it its mappings.
    pub(crate) fn remove_stale(&mut self, node: NodeId) {
        if let Some(partition) = self.detach_all(node) {
            self.remove_from_tree(node, partition);
            self.forget_node(node);
        }
    }

    /// Removes `node` unless its page is still mapped.
    pub(crate) fn remove_if_unmapped(&mut self, node: NodeId) {
        if self.page_if_mapped(node).is_none() {
            self.remove_stale(node);
        }
    }

    /// The stable node behind `last`, or the first, in the order in which they lie in memory; removes
    /// it if it has siblings and its page is gone.
    pub(crate) fn prune_next(&mut self, last: Option<NodeId>) -> Option<NodeId> {
        let node = self.nodes.next_after(last)?;
        if StableTree::is_in_chain(&self.nodes, node) && self.ksm_page(node).is_none() {
            self.remove_stale(node);
        }
        Some(node)
    }

    /// Removes the nodes whose pages lay in memory that has gone.
    #[cfg(CONFIG_MEMORY_HOTREMOVE)]
    pub(crate) fn remove_offline_nodes(&mut self, range: &crate::mm::hotplug::OfflineRange) {
        let mut next = self.nodes.next_after(None);
        while let Some(node) = next {
            let anchor = self.nodes[node].anchor.as_ref();
            if anchor.is_some_and(|anchor| anchor.forget_offline(range)) {
                self.remove_stale(node);
            }
            next = self.nodes.next_after(Some(node));
            kthread::cond_resched();
        }
    }

    /// Whether there are stable nodes.
    pub(crate) fn has_nodes(&self) -> bool {
        self.nodes.len() > 0
    }

    /// Removes the nodes whose pages nothing maps any more; returns whether those were all.
    ///
    /// Few stay: to build the trees anew from those is less work than to take each of the others
    /// out.
    pub(crate) fn remove_unmapped_nodes(&mut self) -> bool {
        self.partitions.forget_stable(&mut self.nodes);
        let mut next = self.nodes.next_after(None);
        let mut ahead = next;
        for _ in 0..NODES_AHEAD {
            ahead = self.fetch_anchor(ahead);
        }
        while let Some(node) = next {
            ahead = self.fetch_anchor(ahead);
            match self.page_if_mapped(node) {
                Some(page) => self.insert_node(node, &page),
                None if self.detach_all(node).is_some() => self.forget_node(node),
                // A page that could not be had a moment ago does not come back.
                None => debug_assert!(false),
            }
            next = self.nodes.next_after(Some(node));
            kthread::cond_resched();
        }
        self.count_chains();
        !self.has_nodes()
    }

    /// Sets how many mappings a KSM page may have.
    ///
    /// # Errors
    ///
    /// `EBUSY` while there are KSM pages.
    pub(crate) fn set_max_page_sharing(&mut self, limit: usize) -> Result {
        self.ensure_no_nodes()?;
        self.max_page_sharing = limit;
        Ok(())
    }

    /// Sets how many sets of pages there are that may be merged with each other.
    ///
    /// # Errors
    ///
    /// `EBUSY` while there are KSM pages; `ENOMEM` without memory for the trees.
    #[cfg(CONFIG_NUMA)]
    pub(crate) fn set_partitions(&mut self, count: usize) -> Result {
        self.ensure_no_nodes()?;
        let partitions = Partitions::new(count)?;
        self.forget_unstable_trees();
        self.partitions = partitions;
        Ok(())
    }

    fn ensure_no_nodes(&mut self) -> Result {
        match self.counters.pages_shared() == 0 && self.remove_unmapped_nodes() {
            true => Ok(()),
            false => Err(EBUSY),
        }
    }

    /// Asks the CPU to fetch the anchor of `node`; returns the node behind it.
    fn fetch_anchor(&self, node: Option<NodeId>) -> Option<NodeId> {
        if let Some(anchor) = &self.nodes[node?].anchor {
            prefetch(&**anchor);
        }
        self.nodes.next_after(node)
    }

    /// The page of `node`, from which it is parted if nothing maps it.
    fn page_if_mapped(&self, node: NodeId) -> Option<PinnedPage> {
        let anchor = self.nodes[node].anchor.as_ref()?;
        match anchor.with_folio(|folio| folio.release().is_ok()) {
            Ok(false) => anchor.page().ok(),
            Ok(true) | Err(_) => None,
        }
    }

    /// Takes `node`, which is to be inserted again, out of the stable tree.
    pub(super) fn take_out(&mut self, node: NodeId) {
        self.remove_from_tree(node, self.nodes[node].partition());
    }

    /// Takes `node` out of the stable tree of its `partition`.
    fn remove_from_tree(&mut self, node: NodeId, partition: PartitionId) {
        let stable = &mut self.partitions.get(partition).stable;
        stable.remove(&mut self.nodes, node);
        self.count_chains();
    }

    /// Frees `node`, which is in no tree and has no mappings.
    fn forget_node(&mut self, node: NodeId) {
        drop(self.nodes.remove(node));
        self.node_domains.forget(node);
        self.release_module_if_unused();
    }

    /// Lets the module be unloaded if there is no node.
    fn release_module_if_unused(&mut self) {
        if !self.has_nodes() {
            self.module_hold = None;
        }
    }

    fn count_chains(&self) {
        let (chains, dups) = self.partitions.count_chains();
        self.counters.chains.set(chains);
        self.counters.dups.set(dups);
    }
}

/// Where `page` stands, seen from the page of `node`, which comes with it.
fn node_verdict(
    page: &Page,
    node: &StableNode,
    next: &Page,
    how: Compare,
) -> (Verdict, Option<KsmPage>) {
    match node.anchor.as_deref().map(KsmPage::of) {
        Some(Ok(other)) => (ksm_verdict(page, &other, next, how), Some(other)),
        _ => (Verdict::Stop, None),
    }
}

/// An anchor with one mapping.
fn anchor_with(node: NodeId, partition: PartitionId, first: Mapping) -> Result<OwnedAnchor> {
    let mut mappings = Mappings::default();
    mappings.push(first)?;
    OwnedAnchor::new(node, NodeState::new(partition), mappings)
}
