// SPDX-License-Identifier: GPL-2.0

//! All cases, by what they are about.

mod contents;
mod cow;
mod mappings;
mod merge;
mod modules;
mod pins;
mod prctl;
mod processes;
mod soak;
mod sysfs;
mod unmerge;

use crate::case::Case;

/// Every case, simple ones first.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        merge::CASES,
        contents::CASES,
        cow::CASES,
        unmerge::CASES,
        processes::CASES,
        mappings::CASES,
        prctl::CASES,
        pins::CASES,
        sysfs::CASES,
        modules::CASES,
        soak::CASES,
    ]
    .into_iter()
    .flatten()
}
