// SPDX-License-Identifier: GPL-2.0

//! A host whose pages are all merged, or could be: nodes of the stable tree, and what a merge does
//! to them.

use crate::{
    checksum::checksum,
    clock::nanoseconds,
    containers::{handle::Handle, pool::Pool, rbtree::Verdict},
    mm::ksm_page::{
        ids::{NodeId, PartitionId, SpaceId},
        ksm_folio::OwnedAnchor,
        mappings::{Mapping, Mappings},
        merged_vma::MergedVma,
        node_state::NodeState,
    },
    records::stable_node::StableNode,
    report::{Access, Row},
    rmap_item::{RmapItem, TrackedMm},
    stable_tree::StableTree,
    waiting::batches,
};
use anyhow::{anyhow, Result};
use kernel::{page::PAGE_SHIFT, prelude::GFP_KERNEL, sync::Arc};
use std::{hint::black_box, ops::Range};

/// The default of `max_page_sharing`.
const MAX_PAGE_SHARING: usize = 256;

/// Nodes of one content in a chain that grows.
const CHAIN: usize = 64;

/// The records of `ksmd` for so many KSM pages, of which only those of a sample have an anchor.
struct Host {
    mm: SpaceId,
    items: Pool<RmapItem>,
    nodes: Pool<StableNode>,
    tree: StableTree<StableNode>,
    vma: Arc<MergedVma>,
}

/// Measures all operations with `pages` KSM pages, on `sample` of them.
pub(crate) fn measure(pages: usize, sample: usize) -> Result<Vec<Row>> {
    let mut host = Host::new()?;
    let mut rows = Vec::new();
    let early = pages - sample;
    host.add(0..early);
    let late = |part: Range<usize>| early + part.start..early + part.end;
    let time = nanoseconds(sample, |part| host.add(late(part)));
    rows.push(Row::new(
        "stable tree: insertion, growing",
        Access::Fetched,
        time,
    ));
    let first = (pages / 3).min(early.saturating_sub(sample));
    let known = |part: Range<usize>| first + part.start..first + part.end;
    let unknown = |part: Range<usize>| pages + part.start..pages + part.end;
    for access in [Access::Raw, Access::Fetched] {
        let time = nanoseconds(sample, |part| host.look_up(known(part), access));
        rows.push(Row::new("stable tree: look-up, found", access, time));
        let time = nanoseconds(sample, |part| host.look_up(unknown(part), access));
        rows.push(Row::new("stable tree: look-up, not found", access, time));
    }
    let mut merged = Vec::new();
    let time = nanoseconds(sample / 4, |part| host.merge(unknown(part), 1, &mut merged));
    rows.push(Row::new("merge of a pair", Access::Fetched, time));
    let time = nanoseconds(sample / 4, |part| host.part(&mut merged, part.len()));
    rows.push(Row::new("end of a pair", Access::Raw, time));
    let time = nanoseconds(sample / 4, |part| {
        host.merge(unknown(part), CHAIN, &mut merged)
    });
    rows.push(Row::new(
        "merge of a pair, in a chain",
        Access::Fetched,
        time,
    ));
    let time = nanoseconds(sample / 4, |part| host.part(&mut merged, part.len()));
    rows.push(Row::new("end of a pair, in a chain", Access::Raw, time));
    Ok(rows)
}

impl Host {
    fn new() -> Result<Self> {
        let failed = |error| anyhow!("{error:?}");
        let mut mms = Pool::new();
        let mm = mms.insert(TrackedMm::default(), GFP_KERNEL);
        Ok(Self {
            mm: mm.map_err(|error| anyhow!("{error:?}"))?,
            items: Pool::new(),
            nodes: Pool::new(),
            tree: StableTree::new().map_err(failed)?,
            vma: Arc::new(MergedVma),
        })
    }

    fn fetch(&self, checksums: impl Iterator<Item = u32> + Clone, access: Access) {
        if access != Access::Fetched {
            return;
        }
        for checksum in checksums.clone() {
            self.tree.trees().prefetch_root(checksum);
        }
        for checksum in checksums {
            self.tree.trees().prefetch_top(&self.nodes, checksum);
        }
    }

    /// Adds nodes without anchors.
    fn add(&mut self, pages: Range<usize>) {
        for batch in batches(pages) {
            self.fetch(
                batch.clone().map(|page| checksum(page as u32)),
                Access::Fetched,
            );
            for page in batch {
                self.plant(StableNode::new(checksum(page as u32)), Verdict::After);
            }
        }
    }

    /// Makes `node` one of the tree; at equal checksums as `verdict` says.
    fn plant(&mut self, node: StableNode, verdict: Verdict) -> NodeId {
        let node = self.nodes.insert(node, GFP_KERNEL).expect("memory");
        let mut verdict = Some(verdict);
        let planted = self.tree.insert(&mut self.nodes, node, |_, _| {
            verdict.take().unwrap_or(Verdict::After)
        });
        assert!(planted.is_ok());
        node
    }

    fn look_up(&self, pages: Range<usize>, access: Access) {
        for batch in batches(pages) {
            self.fetch(batch.clone().map(|page| checksum(page as u32)), access);
            for page in batch {
                black_box(self.tree.has(&self.nodes, checksum(page as u32)));
            }
        }
    }

    /// Notes that pairs of pages have merged, with `equal` pairs of each content.
    fn merge(&mut self, pages: Range<usize>, equal: usize, merged: &mut Vec<NodeId>) {
        let sum = |page: usize| checksum((page / equal) as u32);
        for batch in batches(pages) {
            self.fetch(batch.clone().map(sum), Access::Fetched);
            for page in batch {
                let verdict = match page % equal {
                    0 => Verdict::After,
                    _ => Verdict::Match,
                };
                let mut new = StableNode::new(sum(page));
                let node = Handle::from_raw(page as u32 + 1).expect("not zero");
                let state = NodeState::new(PartitionId::default());
                // As when a page becomes a KSM page: its first mapping is counted before it is planted.
                assert!(state.set_mappings(1, MAX_PAGE_SHARING));
                let anchor = OwnedAnchor::new(node, state, Mappings::default());
                new.anchor = Some(anchor.expect("memory"));
                let node = self.plant(new, verdict);
                for index in 0..2 {
                    self.attach(node, page, index);
                }
                merged.push(node);
            }
        }
    }

    /// Notes one more mapping of a merged page.
    fn attach(&mut self, node: NodeId, page: usize, index: usize) {
        let item = RmapItem::new(self.mm, page << PAGE_SHIFT);
        let item = self.items.insert(item, GFP_KERNEL).expect("memory");
        let mapping = Mapping {
            vma: self.vma.clone(),
            page: page as u32,
            item,
        };
        let anchor = self.nodes[node].anchor.as_mut().expect("just made");
        assert!(anchor.mappings.push(mapping).is_ok());
        let has_room_changed = anchor.state.set_mappings(index + 1, MAX_PAGE_SHARING);
        assert!(!has_room_changed);
        self.items[item].note_merged(node, index);
    }

    /// Undoes the last `count` merges.
    fn part(&mut self, merged: &mut Vec<NodeId>, count: usize) {
        for _ in 0..count {
            let Some(node) = merged.pop() else {
                return;
            };
            self.tree.remove(&mut self.nodes, node);
            let anchor = self.nodes.remove(node).anchor.expect("made with one");
            for mapping in anchor.mappings.iter() {
                self.items.remove(mapping.item);
            }
        }
    }
}
