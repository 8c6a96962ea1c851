// SPDX-License-Identifier: GPL-2.0

//! The wrappers of the kernel that the data structures use.

#[path = "../../../kernel_api/gfp.rs"]
pub(crate) mod gfp;
pub(crate) mod kthread;
#[path = "../../../kernel_api/pages.rs"]
pub(crate) mod pages;
#[path = "../../../kernel_api/prefetch.rs"]
pub(crate) mod prefetch;
