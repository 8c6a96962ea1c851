// SPDX-License-Identifier: GPL-2.0

//! All that is known of address spaces and their pages.
//!
//! [`Records`] owns every record, and it alone changes the place of an rmap_item: a page waits in the
//! unstable tree, leaves it, is attached to a stable node, is detached from it, or is forgotten. So
//! no counter can drift from what it counts.
//!
//! | file | what it has of `impl Records` |
//! |---|---|
//! | [`tracking`] | address spaces and their lists of items |
//! | [`large_folios`] | which pages of large folios have equals |
//! | [`waiting`] | pages that are not merged: checksums, the unstable tree |
//! | [`attaching`] | mappings of stable nodes come and go |
//! | [`stable_nodes`] | stable nodes come, go, and move between trees |
//! | [`domains`] | who may share with whom |
//! | [`census`] | why pages are not merged, for those who ask |
//! | [`walk_view`] | what a walk over page tables may look at and note |

#![deny(unsafe_code)]

pub(crate) mod attaching;
pub(crate) mod census;
pub(crate) mod counters;
pub(crate) mod domains;
pub(crate) mod large_folios;
mod node_domains;
pub(crate) mod partition;
pub(crate) mod registry;
pub(crate) mod stable_node;
pub(crate) mod stable_nodes;
pub(crate) mod tenants;
pub(crate) mod tracking;
pub(crate) mod unstable_node;
pub(crate) mod waiting;
pub(crate) mod walk_view;

use crate::{
    containers::{
        handle_table::Table,
        pool::Pool, //
    },
    kernel_api::module_hold::ModuleHold,
    mm::{
        domain::DomainRule,
        ksm_page::merged_vma::RecentVmas, //
    },
    rmap_item::{
        RmapItem,
        ScanNumber,
        TrackedMm, //
    },
};
#[cfg(CONFIG_KUNIT = "y")]
use crate::{
    mm::ksm_page::ids::SpaceId,
    rmap_item::ListCursor, //
};
use counters::Counters;
#[cfg(CONFIG_KUNIT = "y")]
use kernel::page::PAGE_SIZE;
use kernel::{
    prelude::*,
    sync::Arc,
    ThisModule, //
};
use node_domains::NodeDomains;
use partition::Partitions;
use stable_node::StableNode;
use unstable_node::UnstableNode;

/// See the [module's description](self). The scan mutex protects it.
pub(crate) struct Records {
    items: Pool<RmapItem>,
    /// For pages that are not merged, under the number of the item.
    unstable_nodes: Table<UnstableNode>,
    spaces: Pool<TrackedMm>,
    nodes: Pool<StableNode>,
    node_domains: NodeDomains,
    domain_rule: DomainRule,
    partitions: Partitions,
    recent_vmas: RecentVmas,
    module: &'static ThisModule,
    /// Keeps the module from being unloaded while there are nodes.
    module_hold: Option<ModuleHold>,
    /// Mappings that one KSM page may have.
    max_page_sharing: usize,
    scan: ScanNumber,
    /// Full scans that have begun, round and round.
    scans: u32,
    counters: Arc<Counters>,
}

impl Records {
    pub(crate) fn new(module: &'static ThisModule, max_page_sharing: usize) -> Result<Self> {
        Ok(Self {
            items: Pool::new(),
            unstable_nodes: Table::new(),
            spaces: Pool::new(),
            nodes: Pool::new(),
            node_domains: NodeDomains::new(),
            domain_rule: DomainRule::default(),
            partitions: Partitions::new(1)?,
            recent_vmas: RecentVmas::new(),
            module,
            module_hold: None,
            max_page_sharing,
            scan: ScanNumber::default(),
            scans: 0,
            counters: Arc::new(Counters::new(), GFP_KERNEL)?,
        })
    }

    /// The counters, which can be read without these records.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    /// Notes that a full scan begins. Records that it does not meet will be collected.
    pub(crate) fn begin_scan(&mut self) {
        self.scan = self.scan.next();
        self.scans = self.scans.wrapping_add(1);
    }

    /// Forgets which vmas were looked at last, and with them what they keep alive.
    pub(crate) fn forget_recent_vmas(&mut self) {
        self.recent_vmas.clear();
    }
}

/// Records for KUnit suites of their users.
#[cfg(CONFIG_KUNIT = "y")]
impl Records {
    /// Records of one address space, which has no items.
    pub(crate) fn with_space(max_page_sharing: usize) -> Result<(Self, SpaceId)> {
        let module = &<crate::LocalModule as kernel::ModuleMetadata>::THIS_MODULE;
        let mut records = Self::new(module, max_page_sharing)?;
        let space = records.spaces.insert(TrackedMm::default(), GFP_KERNEL)?;
        Ok((records, space))
    }

    /// Records of one address space, whose first `pages` pages have items; and the beginning of its
    /// list. The smart scan has not met them yet.
    pub(crate) fn with_items(pages: usize) -> Result<(Self, ListCursor)> {
        let (mut records, space) = Self::with_space(256)?;
        let mut cursor = ListCursor::front(space);
        for page in 0..pages {
            records
                .new_item(&mut cursor, page * PAGE_SIZE, false)
                .ok_or(ENOMEM)?;
        }
        Ok((records, ListCursor::front(space)))
    }
}

#[kernel::macros::kunit_tests(ksm_rs_records)]
mod tests {
    use super::*;
    use crate::{
        containers::rbtree::Verdict,
        mm::{
            ksm_page::{
                ids::{
                    ItemId,
                    NodeId, //
                },
                ksm_folio::bind_page,
                mappings::Mapping,
                merged_vma::MergedVma, //
            },
            page::{
                fresh,
                PinnedPage, //
            }, //
        },
        records::census::Census,
        rmap_item::Place,
        testing::random::Random,
        unstable_tree::Outcome, //
    };

    /// Mappings that a KSM page of the model may have.
    const MOST_SHARING: usize = 3;

    /// Contents of pages. Two share each checksum.
    const CONTENTS: usize = 6;

    const PAGES: usize = 24;

    /// The model's record of a page of the address space.
    #[derive(Clone, Copy)]
    struct Known {
        item: ItemId,
        content: usize,
        place: Place,
    }

    /// The model's record of a KSM page, and the only reference to it.
    struct Shared {
        node: NodeId,
        content: usize,
        page: PinnedPage,
    }

    /// Records of one address space, and a model of them.
    struct Fixture {
        records: Records,
        space: SpaceId,
        vma: Arc<MergedVma>,
        known: [Option<Known>; PAGES],
        shared: KVec<Shared>,
    }

    fn checksum_of(content: usize) -> u32 {
        (content / 2 + 1) as u32
    }

    impl Fixture {
        fn new() -> Result<Self> {
            let (records, space) = Records::with_space(MOST_SHARING)?;
            Ok(Self {
                records,
                space,
                vma: MergedVma::fake(space)?,
                known: [None; PAGES],
                shared: KVec::new(),
            })
        }

        /// The place before the item of page number `at`, or where that would be.
        fn cursor_at(&self, at: usize) -> ListCursor {
            let mut cursor = ListCursor::front(self.space);
            while let Some(next) = cursor.next(&self.records.spaces, &self.records.items) {
                if self.records.address(next) >= at * PAGE_SIZE {
                    break;
                }
                cursor.step_over(next);
            }
            cursor
        }

        /// A scan meets page number `at`, which is new or has changed: its content is `content`.
        fn meet(&mut self, at: usize, content: usize) -> Result {
            let mut cursor = self.cursor_at(at);
            let item = match self.known[at] {
                Some(known) => known.item,
                None => self
                    .records
                    .new_item(&mut cursor, at * PAGE_SIZE, false)
                    .ok_or(ENOMEM)?,
            };
            self.leave(at)?;
            self.records.make_searchable(item)?;
            self.records.note_checksum(item, checksum_of(content));
            self.known[at] = Some(Known {
                item,
                content,
                place: Place::Nowhere,
            });
            Ok(())
        }

        /// Page number `at` leaves the tree that it is in.
        fn leave(&mut self, at: usize) -> Result {
            if let Some(known) = &mut self.known[at] {
                self.records.leave_tree(known.item);
                known.place = Place::Nowhere;
                self.records.make_searchable(known.item)?;
                self.records
                    .note_checksum(known.item, checksum_of(known.content));
            }
            self.drop_unmapped();
            Ok(())
        }

        /// The model forgets KSM pages that have no mapping: the records have parted from them.
        fn drop_unmapped(&mut self) {
            let known = &self.known;
            self.shared.retain(|shared| {
                let maps = |known: &Known| known.place == Place::Stable(shared.node);
                known.iter().flatten().any(maps)
            });
        }

        fn count_mappings(&self, node: NodeId) -> usize {
            let maps = |known: &&Known| known.place == Place::Stable(node);
            self.known.iter().flatten().filter(maps).count()
        }

        /// Looks for an equal of page number `at`, and merges both, or leaves it waiting.
        fn seek(&mut self, at: usize) -> Result {
            let Some(Known { item, content, .. }) = self.known[at] else {
                return Ok(());
            };
            self.leave(at)?;
            let with_room = self.shared.iter().position(|shared| {
                shared.content == content && self.count_mappings(shared.node) < MOST_SHARING
            });
            match with_room {
                Some(index) => self.join(at, index),
                None => self.wait_or_pair(at, item, content),
            }
        }

        /// Page number `at` becomes a mapping of a KSM page.
        fn join(&mut self, at: usize, index: usize) -> Result {
            let Some(known) = &mut self.known[at] else {
                return Ok(());
            };
            let Shared { node, page, .. } = &self.shared[index];
            let mapping = Mapping {
                vma: self.vma.clone(),
                page: at as u32,
                item: known.item,
            };
            let mut locked = page.folio().lock();
            self.records.attach(*node, &mut locked, mapping)?;
            drop(locked);
            self.records.forget_checksum(known.item);
            known.place = Place::Stable(*node);
            Ok(())
        }

        fn wait_or_pair(&mut self, at: usize, item: ItemId, content: usize) -> Result {
            let page = fresh::page(content as u64)?;
            let known = &self.known;
            let outcome = self.records.search_or_wait(item, &page, |other, _| {
                let is_other = |known: &&Known| known.item == other;
                match known.iter().flatten().find(is_other) {
                    Some(other) if content < other.content => Verdict::Before,
                    Some(other) if content > other.content => Verdict::After,
                    Some(_) => Verdict::Match,
                    None => Verdict::Stop,
                }
            });
            match outcome {
                Outcome::Inserted => {
                    if let Some(known) = &mut self.known[at] {
                        known.place = Place::Unstable;
                    }
                    Ok(())
                }
                Outcome::Match(other) => self.pair(at, other, page),
                Outcome::Blocked(_) => Err(EINVAL),
            }
        }

        /// Page number `at` becomes a KSM page, which that of `other` joins.
        fn pair(&mut self, at: usize, other: ItemId, page: PinnedPage) -> Result {
            let is_other = |known: &Option<Known>| known.is_some_and(|its| its.item == other);
            let other_at = self.known.iter().position(is_other).ok_or(EINVAL)?;
            let known = self.known[at].as_mut().ok_or(EINVAL)?;
            let mapping = Mapping {
                vma: self.vma.clone(),
                page: at as u32,
                item: known.item,
            };
            let partition = self.records.partition_of(&page);
            let (node, ()) = self
                .records
                .make_node(known.item, mapping, partition, |anchor| {
                    bind_page(&page, anchor)
                })?;
            self.records.insert_node(node, &page);
            self.records.forget_checksum(known.item);
            known.place = Place::Stable(node);
            let content = known.content;
            self.shared.push(
                Shared {
                    node,
                    content,
                    page,
                },
                GFP_KERNEL,
            )?;
            self.leave(other_at)?;
            self.join(other_at, self.shared.len() - 1)
        }

        /// A KSM page is freed behind the back of the records, which notice that later.
        fn lose_page(&mut self, index: usize) -> Result {
            let Ok(Shared { node, page, .. }) = self.shared.remove(index) else {
                return Ok(());
            };
            drop(page);
            self.records.remove_stale(node);
            for at in 0..PAGES {
                if let Some(known) = &mut self.known[at] {
                    if known.place == Place::Stable(node) {
                        known.place = Place::Nowhere;
                        self.records.make_searchable(known.item)?;
                        self.records
                            .note_checksum(known.item, checksum_of(known.content));
                    }
                }
            }
            Ok(())
        }

        /// Page number `at` is unmapped, and a scan goes past it.
        fn unmap(&mut self, at: usize) {
            if let Some(Known { item, .. }) = self.known[at].take() {
                let mut cursor = self.cursor_at(at);
                self.records.free_next(&mut cursor, item);
                self.records.count_items(self.space, -1);
            }
            self.drop_unmapped();
        }

        /// Contents with several KSM pages, and how many pages those have.
        fn chains(&self) -> (usize, usize) {
            (0..CONTENTS)
                .map(|content| {
                    let has_it = |shared: &&Shared| shared.content == content;
                    self.shared.iter().filter(has_it).count()
                })
                .filter(|nodes| *nodes > 1)
                .fold((0, 0), |(chains, dups), nodes| (chains + 1, dups + nodes))
        }

        fn census(&self) -> Census {
            let (mut census, mut last) = (Census::default(), None);
            loop {
                last = self.records.count_some(self.space, last, &mut census);
                if last.is_none() {
                    return census;
                }
            }
        }

        fn ensure_agreement(&self) {
            let count = |is: fn(&Known) -> bool| {
                let is = |known: &&Known| is(known);
                self.known.iter().flatten().filter(is).count()
            };
            let merged = count(|known| matches!(known.place, Place::Stable(_)));
            let counters = &self.records.counters;
            assert_eq!(counters.rmap_items(), count(|_| true));
            let census = self.census();
            assert_eq!(
                (census.changing, census.no_equal, census.has_equal),
                (
                    count(|known| known.place == Place::Nowhere),
                    count(|known| known.place == Place::Unstable),
                    0
                )
            );
            assert_eq!(
                counters.pages_unshared(),
                count(|known| known.place == Place::Unstable)
            );
            assert_eq!(counters.pages_shared(), self.shared.len());
            assert_eq!(counters.pages_sharing(), merged - self.shared.len());
            assert_eq!((counters.chains(), counters.dups()), self.chains());
            assert_eq!(self.records.nodes.len(), self.shared.len());
            assert_eq!(self.records.module_hold.is_some(), !self.shared.is_empty());
            for known in self.known.iter().flatten() {
                assert_eq!(self.records.place(known.item), known.place);
                let is_merged = matches!(known.place, Place::Stable(_));
                assert_eq!(self.records.has_checksum(known.item), !is_merged);
            }
        }
    }

    #[test]
    fn places_and_counters_agree_with_a_model() -> Result {
        let mut random = Random::new(27);
        let mut fixture = Fixture::new()?;
        for _ in 0..4000 {
            let at = random.below(PAGES);
            match random.below(20) {
                0..=5 => fixture.meet(at, random.below(CONTENTS))?,
                6..=14 => fixture.seek(at)?,
                15..=16 => fixture.leave(at)?,
                17..=18 => fixture.unmap(at),
                _ if fixture.shared.is_empty() => {}
                _ => fixture.lose_page(random.below(fixture.shared.len()))?,
            }
            fixture.ensure_agreement();
        }
        // An anchor that a page points to stays when its records go.
        assert!(fixture.records.remove_unmapped_nodes());
        Ok(())
    }

    #[test]
    fn all_can_be_undone_at_once() -> Result {
        let mut fixture = Fixture::new()?;
        for at in 0..PAGES {
            fixture.meet(at, at % CONTENTS)?;
            fixture.seek(at)?;
        }
        fixture.ensure_agreement();
        assert!(!fixture.records.forget_items());
        assert!(fixture.records.set_max_page_sharing(2).is_err());
        // Nothing maps the pages, so all nodes go.
        assert!(fixture.records.remove_unmapped_nodes());
        assert!(fixture.records.forget_items());
        fixture.known = [None; PAGES];
        fixture.shared.clear();
        fixture.ensure_agreement();
        assert!(fixture.records.spaces[fixture.space].is_empty());
        assert!(fixture.records.set_max_page_sharing(2).is_ok());
        Ok(())
    }
}
