// SPDX-License-Identifier: GPL-2.0

//! Translations of addresses that a CPU keeps, with which it goes on unseen by page tables.

use anyhow::Result;
use nix::sys::mman::ProtFlags;

use crate::region::Region;

/// More pages than a kernel takes out of a TLB one by one.
const MANY: usize = 128;

/// Has all translations of this process forgotten: what is touched from now on leaves a trace.
pub fn flush() -> Result<()> {
    let mut region = Region::new(MANY)?;
    region.populate()?;
    region.protected(ProtFlags::PROT_READ, || Ok(()))
}
