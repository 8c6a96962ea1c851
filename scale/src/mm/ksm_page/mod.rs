// SPDX-License-Identifier: GPL-2.0

//! The parts of KSM pages that the data structures see.

#[path = "../../../../mm/ksm_page/ids.rs"]
pub(crate) mod ids;
pub(crate) mod ksm_folio;
#[path = "../../../../mm/ksm_page/mappings.rs"]
pub(crate) mod mappings;
pub(crate) mod merged_vma;
#[path = "../../../../mm/ksm_page/node_state.rs"]
pub(crate) mod node_state;
