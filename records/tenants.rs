// SPDX-License-Identifier: GPL-2.0

//! What the pages of each domain come to.
//!
//! Address spaces and stable nodes are looked at in the order of their handles, a bounded number at a
//! time: between two calls the scan may go on, so the sums are not of one moment.

#![deny(unsafe_code)]

use super::Records;
use crate::{
    mm::{
        address_space::{
            read,
            Counter, //
        },
        domain::Domain,
        ksm_page::ids::{
            NodeId,
            SpaceId, //
        }, //
    },
    rmap_item::TrackedMm, //
};
use kernel::{
    prelude::*,
    rbtree::RBTree, //
};

/// Address spaces, or nodes, that one call looks at: less than a millisecond.
const AT_ONCE: usize = 1 << 12;

/// Sums of one domain.
#[derive(Default)]
pub(crate) struct Tenant {
    /// Address spaces that the scan has met.
    pub(crate) processes: usize,
    /// KSM pages.
    pub(crate) shared: usize,
    /// Pages that are mappings of these.
    pub(crate) merging: usize,
    /// Pages with records, merged or not.
    pub(crate) items: usize,
    /// Pages that the zero page has replaced.
    pub(crate) zero: usize,
}

/// All domains that have pages with records.
pub(crate) struct Tenants {
    by_domain: RBTree<Domain, Tenant>,
}

/// How far the look has come.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    Spaces(Option<SpaceId>),
    Nodes(Option<NodeId>),
}

impl Tenants {
    pub(crate) fn new() -> Self {
        Self {
            by_domain: RBTree::new(),
        }
    }

    /// The domains in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Domain, &Tenant)> {
        self.by_domain.iter()
    }

    fn of(&mut self, domain: Domain) -> Result<&mut Tenant> {
        if self.by_domain.get(&domain).is_none() {
            let none = Tenant::default();
            self.by_domain
                .try_create_and_insert(domain, none, GFP_KERNEL)?;
        }
        self.by_domain.get_mut(&domain).ok_or(ENOENT)
    }

    fn count_space(&mut self, space: &TrackedMm) -> Result {
        let Some(slot) = space.slot() else {
            return Ok(());
        };
        let tenant = self.of(slot.domain())?;
        tenant.processes += 1;
        tenant.merging += read(slot.mm(), Counter::MergingPages);
        tenant.items += read(slot.mm(), Counter::RmapItems);
        tenant.zero += read(slot.mm(), Counter::ZeroPages);
        Ok(())
    }
}

impl Records {
    /// Adds some address spaces, or nodes, to the sums; returns where to go on, unless there are no more.
    ///
    /// # Errors
    ///
    /// `ENOMEM` without memory for one more domain.
    pub(crate) fn look_at_tenants(&self, look: Look, sums: &mut Tenants) -> Result<Option<Look>> {
        match look {
            Look::Spaces(last) => {
                let last = self.look_at_spaces(last, sums)?;
                Ok(Some(last.map_or(Look::Nodes(None), |last| {
                    Look::Spaces(Some(last))
                })))
            }
            Look::Nodes(last) => {
                let last = self.look_at_nodes(last, sums)?;
                Ok(last.map(|last| Look::Nodes(Some(last))))
            }
        }
    }

    fn look_at_spaces(
        &self,
        mut last: Option<SpaceId>,
        sums: &mut Tenants,
    ) -> Result<Option<SpaceId>> {
        for _ in 0..AT_ONCE {
            let Some(space) = self.spaces.next_after(last) else {
                return Ok(None);
            };
            sums.count_space(&self.spaces[space])?;
            last = Some(space);
        }
        Ok(last)
    }

    fn look_at_nodes(
        &self,
        mut last: Option<NodeId>,
        sums: &mut Tenants,
    ) -> Result<Option<NodeId>> {
        for _ in 0..AT_ONCE {
            let Some(node) = self.nodes.next_after(last) else {
                return Ok(None);
            };
            sums.of(self.node_domain(node))?.shared += 1;
            last = Some(node);
        }
        Ok(last)
    }
}
