// SPDX-License-Identifier: GPL-2.0

//! The parts of mm that the data structures see.

pub(crate) mod folio;
pub(crate) mod ksm_folio;
#[path = "../../../mm/pages.rs"]
pub(crate) mod pages;
#[path = "../../../mm/prefetch.rs"]
pub(crate) mod prefetch;
