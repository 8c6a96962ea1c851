// SPDX-License-Identifier: GPL-2.0

//! An address space that is none.

/// Stands for the registration of an address space.
pub(crate) struct MmSlot;
