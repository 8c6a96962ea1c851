// SPDX-License-Identifier: GPL-2.0

//! The domains of pages, and the rule that says which domains count.
//!
//! A page that is not merged has the domain of its address space, which is noted when that comes to be
//! tracked: it is forgotten before the domain changes. A stable node has the domain of the pages that it
//! was made of. In the keys of both trees the domain stands before the content: a page is never compared
//! with that of another domain.

#![deny(unsafe_code)]

use super::{
    waiting::domain_of,
    Records, //
};
use crate::{
    kernel_api::kthread,
    mm::{
        domain::{
            Domain,
            DomainRule, //
        },
        ksm_page::ids::{
            ItemId,
            NodeId, //
        }, //
    },
    page::checksum::Keys, //
};

impl Records {
    /// Which domains count.
    pub(crate) fn domain_rule(&self) -> DomainRule {
        self.domain_rule
    }

    /// The domain of the page of `item`, which is not merged.
    pub(crate) fn domain_of(&self, item: ItemId) -> Domain {
        domain_of(&self.items, &self.spaces, item)
    }

    /// The domain of the page of `node`.
    pub(crate) fn node_domain(&self, node: NodeId) -> Domain {
        self.node_domains.of(node)
    }

    /// Lets more domains count. The caller has parted the pages of address spaces whose domains change
    /// by that, and has forgotten these.
    pub(crate) fn tell_apart(&mut self, rule: DomainRule) {
        debug_assert!(rule >= self.domain_rule);
        self.domain_rule = rule;
    }

    /// Lets fewer domains count: pages of domains that become one can be merged from now on. `keys` are
    /// those that checksums are made with.
    pub(crate) fn bring_together(&mut self, rule: DomainRule, keys: &Keys) {
        debug_assert!(rule <= self.domain_rule);
        self.domain_rule = rule;
        self.spaces.for_each_mut(|space| {
            if let Some(slot) = space.slot() {
                slot.set_domain(rule.merge(slot.domain()));
            }
        });
        // Their checksums are those of other domains now. The next scan takes them for changed pages.
        self.forget_unstable_trees();
        let mut next = self.nodes.next_after(None);
        while let Some(node) = next {
            self.bring_node(node, rule, keys);
            next = self.nodes.next_after(Some(node));
            kthread::cond_resched();
        }
    }

    /// Puts `node` where its page is found by pages of the domain that its own has become.
    fn bring_node(&mut self, node: NodeId, rule: DomainRule, keys: &Keys) {
        let from = self.node_domains.of(node);
        let to = rule.merge(from);
        if from == to {
            return;
        }
        match self.ksm_page(node) {
            Some(page) => {
                self.take_out(node);
                self.nodes[node]
                    .translate(|checksum| keys.translate(checksum, from.number(), to.number()));
                // What domains become is the common one, or they are as they were.
                self.node_domains.forget(node);
                self.insert_node(node, page.page());
            }
            None => self.remove_stale(node),
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_domains)]
mod tests {
    use super::*;
    use crate::{
        containers::rbtree::Verdict,
        mm::{
            address_space::EmptyMms,
            ksm_page::{
                compare::Compare,
                ids::SpaceId,
                ksm_folio::bind_page,
                mappings::Mapping,
                merged_vma::MergedVma, //
            },
            page::{
                fresh,
                PinnedPage, //
            }, //
        },
        records::{
            registry::MmSlot,
            stable_nodes::Equal,
            tenants::{
                Look,
                Tenants, //
            }, //
        },
        rmap_item::ListCursor,
        unstable_tree::Outcome, //
    };
    use kernel::{
        page::PAGE_SIZE,
        prelude::*,
        sync::Arc, //
    };

    /// The checksum of all pages: domains alone tell them apart, as if their salts were equal.
    const CHECKSUM: u32 = 5;

    const CONTENT: u64 = 9;

    /// The second is that of a program that nobody has marked.
    const DOMAINS: [u64; 2] = [7, kernel::bindings::KSM_DOMAIN_UNMARKED | 7];

    struct Fixture {
        records: Records,
        spaces: [SpaceId; DOMAINS.len()],
        pages: usize,
        // Behind the records, which refer to these.
        _mms: EmptyMms,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            let (mut records, unused) = Records::with_space(256)?;
            records.domain_rule = DomainRule::Private;
            let mms = EmptyMms::new(DOMAINS.len())?;
            let mut spaces = [unused; DOMAINS.len()];
            for (index, number) in DOMAINS.into_iter().enumerate() {
                let slot = Arc::new(MmSlot::new(mms.get(index)), GFP_KERNEL)?;
                let space = records.track(&slot, Domain::from_number(number));
                spaces[index] = space.ok_or(ENOMEM)?;
            }
            Ok(Self {
                records,
                spaces,
                pages: 0,
                _mms: mms,
            })
        }

        /// The item of a new page in the address space of that number, ready to be looked up.
        fn item(&mut self, space: usize) -> Result<ItemId> {
            let mut cursor = ListCursor::front(self.spaces[space]);
            let address = self.pages * PAGE_SIZE;
            self.pages += 1;
            let item = self.records.new_item(&mut cursor, address, false);
            let item = item.ok_or(ENOMEM)?;
            self.records.make_searchable(item)?;
            self.records.note_checksum(item, CHECKSUM);
            Ok(item)
        }

        /// Looks for an equal that waits; returns it, or leaves the item waiting.
        fn seek(&mut self, item: ItemId) -> Result<Option<ItemId>> {
            let page = fresh::page(CONTENT)?;
            let outcome = self
                .records
                .search_or_wait(item, &page, |_, _| Verdict::Match);
            Ok(match outcome {
                Outcome::Match(other) => Some(other),
                _ => None,
            })
        }

        /// Makes a KSM page of the page of `item`.
        fn make_node(&mut self, item: ItemId, page: &PinnedPage) -> Result<NodeId> {
            let space = self.records.items[item].space().ok_or(EINVAL)?;
            let mapping = Mapping {
                vma: MergedVma::fake(space)?,
                page: 0,
                item,
            };
            let partition = self.records.partition_of(page);
            let (node, ()) = self
                .records
                .make_node(item, mapping, partition, |anchor| bind_page(page, anchor))?;
            self.records.insert_node(node, page);
            self.records.forget_checksum(item);
            Ok(node)
        }

        /// The KSM page that an item in the address space of that number finds.
        fn find(&mut self, space: usize) -> Result<Option<NodeId>> {
            let (item, page) = (self.item(space)?, fresh::page(CONTENT)?);
            let found = self
                .records
                .find_equal(item, (&page, &page), Compare::Whole);
            Ok(match found {
                Equal::WithRoom(node, _) => Some(node),
                Equal::Full | Equal::Missing => None,
            })
        }
    }

    #[test]
    fn a_page_meets_those_of_its_domain_alone() -> Result {
        let mut fixture = Fixture::new()?;
        let waiting = [fixture.item(0)?, fixture.item(1)?];
        assert!(fixture.seek(waiting[0])?.is_none());
        // It is not even compared with the first.
        assert!(fixture.seek(waiting[1])?.is_none());
        for (space, equal) in waiting.into_iter().enumerate() {
            let item = fixture.item(space)?;
            assert!(fixture.seek(item)? == Some(equal));
        }
        Ok(())
    }

    #[test]
    fn a_ksm_page_is_found_in_its_domain_alone() -> Result {
        let mut fixture = Fixture::new()?;
        let page = fresh::page(CONTENT)?;
        for owner in 0..DOMAINS.len() {
            let item = fixture.item(owner)?;
            let node = fixture.make_node(item, &page)?;
            assert_eq!(fixture.records.node_domain(node).number(), DOMAINS[owner]);
            for space in 0..DOMAINS.len() {
                assert!(fixture.find(space)? == (space == owner).then_some(node));
            }
            fixture.records.leave_tree(item);
            assert!(!fixture.records.has_nodes());
            assert!(fixture.records.node_domains.is_empty());
        }
        Ok(())
    }

    #[test]
    fn domains_that_become_one_find_each_others_pages() -> Result {
        let mut fixture = Fixture::new()?;
        let page = fresh::page(CONTENT)?;
        let item = fixture.item(1)?;
        let node = fixture.make_node(item, &page)?;
        let keys = Keys::new(3);
        let waiting = fixture.item(0)?;
        assert!(fixture.seek(waiting)?.is_none());
        fixture.records.bring_together(DomainRule::Marked, &keys);
        assert!(fixture.find(0)?.is_none() && fixture.records.node_domain(node) == Domain::COMMON);
        fixture.records.bring_together(DomainRule::Shared, &keys);
        assert_eq!(fixture.records.counters().pages_unshared(), 0);
        // It stands under the checksum that its content has in the common domain.
        let common = keys.translate(CHECKSUM, DOMAINS[1], 0);
        for space in 0..DOMAINS.len() {
            let item = fixture.item(space)?;
            fixture.records.note_checksum(item, common);
            let found = fixture
                .records
                .find_equal(item, (&page, &page), Compare::Whole);
            assert!(matches!(found, Equal::WithRoom(found, _) if found == node));
        }
        fixture.records.leave_tree(item);
        Ok(())
    }

    #[test]
    fn sums_are_of_each_domain() -> Result {
        let mut fixture = Fixture::new()?;
        let page = fresh::page(CONTENT)?;
        let (merged, _) = (fixture.item(1)?, fixture.item(1)?);
        fixture.item(0)?;
        fixture.make_node(merged, &page)?;
        let (mut sums, mut look) = (Tenants::new(), Some(Look::Spaces(None)));
        while let Some(begin) = look {
            look = fixture.records.look_at_tenants(begin, &mut sums)?;
        }
        let found = sums.iter().map(|(domain, tenant)| {
            let number = domain.number();
            (number, tenant.processes, tenant.shared, tenant.items)
        });
        assert!(found.eq([(DOMAINS[0], 1, 0, 1), (DOMAINS[1], 1, 1, 2)]));
        fixture.records.leave_tree(merged);
        Ok(())
    }
}
