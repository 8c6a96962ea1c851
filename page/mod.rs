// SPDX-License-Identifier: GPL-2.0

//! The content of a page.

pub(crate) mod checksum;
pub(crate) mod content;
