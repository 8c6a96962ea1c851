// SPDX-License-Identifier: GPL-2.0

//! All cases, by what they are about.

mod attempts;
mod big;
mod chains;
mod compat;
mod contents;
mod cow;
mod domains;
mod failure;
mod fresh_frames;
mod huge;
mod huge_policy;
mod in_sync;
mod kvm;
mod large_folios;
mod large_swap;
mod left_zeros;
mod locked;
mod mainline_sysfs;
mod mappings;
mod memory;
mod merge;
mod migration;
mod modules;
mod numa;
mod only_zeros;
mod pins;
mod policy;
mod prctl;
mod pressure;
mod processes;
mod soak;
mod swapping;
mod sysfs;
mod unmerge;
mod untouched;
mod watch;
mod writers;
mod zero_pages;

use crate::case::Case;

/// Every case, simple ones first.
pub fn all() -> impl Iterator<Item = &'static Case> {
    [
        merge::CASES,
        attempts::CASES,
        contents::CASES,
        cow::CASES,
        unmerge::CASES,
        processes::CASES,
        mappings::CASES,
        prctl::CASES,
        pins::CASES,
        sysfs::CASES,
        mainline_sysfs::CASES,
        writers::CASES,
        compat::CASES,
        chains::CASES,
        numa::CASES,
        zero_pages::CASES,
        only_zeros::CASES,
        domains::CASES,
        policy::CASES,
        untouched::CASES,
        in_sync::CASES,
        swapping::CASES,
        large_swap::CASES,
        migration::CASES,
        failure::CASES,
        fresh_frames::CASES,
        huge::CASES,
        huge_policy::CASES,
        large_folios::CASES,
        kvm::CASES,
        memory::CASES,
        watch::CASES,
        pressure::CASES,
        big::CASES,
        locked::CASES,
        modules::CASES,
        left_zeros::CASES,
        soak::CASES,
    ]
    .into_iter()
    .flatten()
}
