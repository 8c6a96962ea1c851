// SPDX-License-Identifier: GPL-2.0

//! A host whose pages are all different: each has an item and a node in the unstable tree.

use crate::{
    checksum::checksum,
    clock::nanoseconds,
    containers::{handle::Handle, handle_table::Table, pool::Pool, rbtree::Verdict},
    mm::ksm_page::ids::ItemId,
    records::unstable_node::UnstableNode,
    report::{Access, Row},
    rmap_item::{ListCursor, RmapItem, TrackedMm},
    unstable_tree::{Outcome, UnstableTree},
};
use anyhow::{anyhow, Result};
use kernel::{page::PAGE_SHIFT, prelude::GFP_KERNEL};
use std::{hint::black_box, ops::Range};

/// Pages that are looked up together, as in `scan/batch.rs`.
pub(crate) const BATCH: usize = 128;

/// The records of `ksmd` for so many pages.
struct Host {
    mms: Pool<TrackedMm>,
    items: Pool<RmapItem>,
    nodes: Table<UnstableNode>,
    tree: UnstableTree<UnstableNode>,
    cursor: ListCursor,
}

/// Whether a page has an item, or is in the tree alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    All,
    TreesOnly,
}

/// Measures all operations with `pages` pages, on `sample` of them.
pub(crate) fn measure(pages: usize, sample: usize, records: Records) -> Result<Vec<Row>> {
    let mut host = Host::new()?;
    let mut rows = Vec::new();
    let early = pages - sample;
    host.add(0..early, records);
    let (track, insert) = host.time_growth(early..pages, records);
    if records == Records::All {
        rows.push(Row::new(
            "item and its node: made",
            Access::Sequential,
            track,
        ));
        let walk = nanoseconds(sample, |part| host.walk(part.len()));
        rows.push(Row::new("item: met in its list", Access::Sequential, walk));
    }
    rows.push(Row::new(
        "unstable tree: insertion, growing",
        Access::Fetched,
        insert,
    ));
    // Neither first nor last: neighbours in the table, and far from each other in the trees.
    let first = (pages / 3).min(early.saturating_sub(sample));
    let shift = |part: Range<usize>| first + part.start..first + part.end;
    for access in [Access::Raw, Access::Fetched] {
        let time = nanoseconds(sample, |part| host.look_up(shift(part), access));
        rows.push(Row::new("unstable tree: look-up", access, time));
        let time = nanoseconds(sample, |part| host.remove(shift(part), access));
        rows.push(Row::new("unstable tree: removal", access, time));
        let time = nanoseconds(sample, |part| host.insert(shift(part), access));
        rows.push(Row::new("unstable tree: insertion", access, time));
    }
    if records == Records::All {
        let time = nanoseconds(sample, |part| host.forget(shift(part)));
        rows.push(Row::new(
            "item and its node: freed",
            Access::Sequential,
            time,
        ));
    }
    Ok(rows)
}

fn node(page: usize) -> ItemId {
    Handle::from_raw(page as u32 + 1).expect("not zero")
}

impl Host {
    fn new() -> Result<Self> {
        let mut mms = Pool::new();
        let mm = mms
            .insert(TrackedMm::default(), GFP_KERNEL)
            .map_err(|error| anyhow!("{error:?}"))?;
        Ok(Self {
            mms,
            items: Pool::new(),
            nodes: Table::new(),
            tree: UnstableTree::new().map_err(|error| anyhow!("{error:?}"))?,
            cursor: ListCursor::front(mm),
        })
    }

    fn add(&mut self, pages: Range<usize>, records: Records) {
        for batch in batches(pages) {
            self.track(batch.clone(), records);
            self.insert(batch, Access::Fetched);
        }
    }

    /// Nanoseconds to track a page, and to insert it.
    fn time_growth(&mut self, pages: Range<usize>, records: Records) -> (f64, f64) {
        let shift = |part: Range<usize>| pages.start + part.start..pages.start + part.end;
        let track = nanoseconds(pages.len(), |part| self.track(shift(part), records));
        // Pages that do not fill a part come last.
        let insert = nanoseconds(pages.len(), |part| {
            self.insert(shift(part), Access::Fetched)
        });
        (track, insert)
    }

    /// Makes the records of new pages.
    fn track(&mut self, pages: Range<usize>, records: Records) {
        for page in pages {
            if records == Records::All {
                let item = RmapItem::new(self.cursor.space(), page << PAGE_SHIFT);
                let item = self.items.insert(item, GFP_KERNEL).expect("memory");
                self.cursor.insert(&mut self.mms, &mut self.items, item);
            }
            let new = UnstableNode::new(checksum(page as u32));
            let put = self.nodes.put(node(page), new, GFP_KERNEL);
            assert!(put.is_ok());
        }
    }

    /// Goes through the list, `count` items from its beginning.
    fn walk(&mut self, count: usize) {
        let mut cursor = ListCursor::front(self.cursor.space());
        for _ in 0..count {
            let Some(item) = cursor.next(&self.mms, &self.items) else {
                break;
            };
            black_box(self.items[item].address());
            cursor.step_over(item);
        }
    }

    /// Frees the records of pages, and does not tell the list.
    fn forget(&mut self, pages: Range<usize>) {
        for page in pages {
            self.nodes.remove(node(page));
            self.items.remove(node(page));
        }
    }

    /// Has the CPU fetch what the look-ups of a batch begin with, as `scan/batch.rs` does.
    fn fetch(&self, pages: Range<usize>, access: Access) {
        if access != Access::Fetched {
            return;
        }
        for page in pages.clone() {
            self.tree.trees().prefetch_root(checksum(page as u32));
        }
        for page in pages {
            let forest = self.tree.trees();
            forest.prefetch_top(&self.nodes, checksum(page as u32));
        }
    }

    fn insert(&mut self, pages: Range<usize>, access: Access) {
        for batch in batches(pages) {
            self.fetch(batch.clone(), access);
            for page in batch {
                let outcome = self
                    .tree
                    .search_or_insert(&mut self.nodes, node(page), |_, _| Verdict::After);
                assert!(matches!(outcome, Outcome::Inserted));
            }
        }
    }

    fn look_up(&self, pages: Range<usize>, access: Access) {
        for batch in batches(pages) {
            self.fetch(batch.clone(), access);
            for page in batch {
                let checksum = checksum(page as u32);
                let forest = self.tree.trees();
                black_box(forest.descend(&self.nodes, checksum, |_, _| Verdict::Match));
            }
        }
    }

    fn remove(&mut self, pages: Range<usize>, access: Access) {
        for batch in batches(pages) {
            self.fetch(batch.clone(), access);
            for page in batch {
                self.tree.remove(&mut self.nodes, node(page));
            }
        }
    }
}

/// The pages, a batch at a time.
pub(crate) fn batches(pages: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = pages.end;
    pages
        .step_by(BATCH)
        .map(move |start| start..(start + BATCH).min(end))
}
