// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers of what the module needs of the kernel beside mm.

pub(crate) mod gfp;
pub(crate) mod kobject;
pub(crate) mod kthread;
pub(crate) mod module_hold;
pub(crate) mod pages;
pub(crate) mod prefetch;
