// SPDX-License-Identifier: GPL-2.0

//! KSM pages: how they are tied to their stable nodes, where they are mapped, and how page table
//! entries come to map them.

pub(crate) mod compare;
pub(crate) mod fresh_page;
pub(crate) mod huge_zeros;
pub(crate) mod ids;
pub(crate) mod ksm_folio;
pub(crate) mod mappings;
pub(crate) mod merged_vma;
pub(crate) mod node_state;
pub(crate) mod rmap_walk;
pub(crate) mod share;
pub(crate) mod trace;
pub(crate) mod walk;
