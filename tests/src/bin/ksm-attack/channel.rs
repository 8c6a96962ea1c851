// SPDX-License-Identifier: GPL-2.0

//! The ways by which a process may learn that a page of its own is shared.

use std::fs;

use anyhow::{Context, Result};
use ksm_tests::{ksm, pagemap, procfs, region::Region};
use serde::{Deserialize, Serialize};

use crate::clock;

/// A way to ask, which gives a number. Each is greater for a page that is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Channel {
    /// Whether it is mapped once only, in `/proc/self/pagemap`.
    Pagemap,
    /// `KSM` in `/proc/self/smaps`.
    Smaps,
    /// `/proc/self/ksm_stat`.
    KsmStat,
    /// How long a read takes, if the victim has just read its page, and nobody else has.
    ReadTime,
    /// How long a write takes.
    WriteTime,
    /// `cow_ksm` in `/proc/vmstat`, before and after that write.
    CowKsm,
    /// `pages_sharing`, if the attacker holds one of the two pages alone.
    PagesSharing,
    /// `pages_sharing`, if the victim holds two pages, which are equal or not, and the attacker none.
    VictimsPairs,
}

impl Channel {
    /// Those that only look at a page.
    pub const THAT_LOOK: [Self; 3] = [Self::Pagemap, Self::Smaps, Self::KsmStat];
}

/// The number that `channel` gives for the page of `region`. What cannot be read says nothing.
pub fn ask(channel: Channel, region: &mut Region) -> Result<i64> {
    Ok(match channel {
        Channel::Pagemap => i64::from(!pagemap::is_exclusive(region, 0)?),
        Channel::Smaps => procfs::smaps_kib(region, "KSM").unwrap_or(0),
        Channel::KsmStat => procfs::merging_pages("self").unwrap_or(0),
        // What is in the cache, as the victim has read it, is read in a shorter time.
        Channel::ReadTime => -i64::try_from(clock::cycles_of_read(region.bytes(), PROBED))?,
        Channel::WriteTime => {
            let byte = &mut region.bytes_mut()[0];
            i64::try_from(clock::cycles(|| *byte = byte.wrapping_add(1)))?
        }
        Channel::CowKsm => procfs::vmstat("cow_ksm")?,
        Channel::PagesSharing | Channel::VictimsPairs => sharing()?,
    })
}

/// The byte whose line in the cache is asked for: behind all that a comparison reads first.
pub const PROBED: usize = 2048;

/// `pages_sharing`, as far as this process may read it.
fn sharing() -> Result<i64> {
    match fs::read_to_string(ksm::path("pages_sharing")) {
        Ok(text) => text.trim().parse().context("pages_sharing"),
        Err(_) => Ok(0),
    }
}
