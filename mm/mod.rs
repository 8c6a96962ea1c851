// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers of the parts of mm that KSM needs.
//!
//! Each file wraps one concept of C under its C name. They stand in for what `kernel::mm` does not
//! have yet. `unsafe` is allowed in them, in the other wrappers, in [`crate::madvise_hook`] and in the
//! module's root, and nowhere else.

pub(crate) mod address_space;
pub(crate) mod anon_vma;
pub(crate) mod copies;
pub(crate) mod domain;
pub(crate) mod folio;
pub(crate) mod folio_batch;
pub(crate) mod held_pages;
#[cfg(CONFIG_MEMORY_HOTREMOVE)]
pub(crate) mod hotplug;
pub(crate) mod ksm_page;
pub(crate) mod lru;
pub(crate) mod new_folios;
pub(crate) mod notifier;
pub(crate) mod oom;
pub(crate) mod page;
pub(crate) mod page_table;
pub(crate) mod process;
pub(crate) mod pte;
pub(crate) mod rmap;
#[cfg(CONFIG_MMU_NOTIFIER)]
pub(crate) mod subscription;
pub(crate) mod unshare;
pub(crate) mod vma;
