// SPDX-License-Identifier: GPL-2.0

//! The domains of stable nodes, and where pages stand by their domains.

#![deny(unsafe_code)]

use crate::{
    containers::{
        handle::Named,
        handle_table::{
            per_page,
            Stored,
            Table, //
        },
        rbtree::Verdict, //
    },
    kernel_api::{
        gfp,
        pages::Pages, //
    },
    mm::{
        domain::Domain,
        ksm_page::ids::{
            Node,
            NodeId, //
        }, //
    },
};
use core::cmp::Ordering;
use kernel::alloc::AllocError;

/// The domain of a stable node.
#[derive(Default)]
struct NodeDomain(Domain);

impl Named for NodeDomain {
    type Name = Node;
}

impl Stored for NodeDomain {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Pages;
}

/// The domains of stable nodes, under their numbers. Nodes of the common domain have no entry, so a host
/// without other domains does without the table.
pub(super) struct NodeDomains(Table<NodeDomain>);

impl NodeDomains {
    pub(super) fn new() -> Self {
        Self(Table::new())
    }

    /// The domain of `node`.
    pub(super) fn of(&self, node: NodeId) -> Domain {
        match self.0.contains(node) {
            true => self.0[node].0,
            false => Domain::COMMON,
        }
    }

    /// Notes the domain of `node`, which is new.
    ///
    /// # Errors
    ///
    /// Fails without memory for it.
    pub(super) fn note(&mut self, node: NodeId, domain: Domain) -> Result<(), AllocError> {
        match domain {
            Domain::COMMON => Ok(()),
            domain => self.0.put(node, NodeDomain(domain), gfp::for_merge()),
        }
    }

    /// Whether all nodes are of the common domain.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Forgets `node`.
    pub(super) fn forget(&mut self, node: NodeId) {
        if self.0.contains(node) {
            self.0.remove(node);
        }
    }
}

/// Where a page of `domain` stands, seen from one of the domain `other`; `None` if their contents decide.
pub(super) fn verdict_of_domains(domain: Domain, other: Domain) -> Option<Verdict> {
    match domain.cmp(&other) {
        Ordering::Less => Some(Verdict::Before),
        Ordering::Equal => None,
        Ordering::Greater => Some(Verdict::After),
    }
}
