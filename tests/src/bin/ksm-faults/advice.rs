// SPDX-License-Identifier: GPL-2.0

//! `madvise` and `prctl`.

use anyhow::{ensure, Result};
use ksm_tests::{faults::Fuse, merge_any, pattern, procfs, region::Region};
use nix::errno::Errno;

use crate::{
    attempt::{in_child, Attempt},
    entry::Entry,
    memory::{ensure_unmerged, Twins, PAGES},
};

/// What madvise(2) says of a kernel without memory.
const MADVISE_ERRORS: &[Errno] = &[Errno::ENOMEM, Errno::EAGAIN];

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::new("madvise(MADV_MERGEABLE)", advise),
        Entry::new("madvise(MADV_UNMERGEABLE)", take_back),
        Entry::new("prctl(PR_SET_MEMORY_MERGE, 1)", offer_all),
        Entry::new("prctl(PR_SET_MEMORY_MERGE, 0)", take_all_back),
    ]
}

fn advise(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        // The middle of a mapping, so that it has to be split.
        let content = pattern::pages(2, 3 * PAGES);
        let mut first = Region::with_content(&content)?;
        let mut middle = first.split_off(PAGES)?;
        let _last = middle.split_off(PAGES)?;
        let expected = &content[first.len()..][..middle.len()];
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || middle.try_advise_mergeable())?;
        middle.verify(expected)?;
        let advised = procfs::is_mergeable(&middle)?;
        ensure!(
            advised == result.is_ok(),
            "{result:?}, but advised {advised}"
        );
        middle.advise_mergeable()?;
        ensure!(procfs::is_mergeable(&middle)?, "the advice is lost");
        Attempt::new(&result, went_off, MADVISE_ERRORS)
    })
}

fn take_back(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        let twins = Twins::merged(Region::mergeable)?;
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || twins.left.try_advise_unmergeable())?;
        twins.verify()?;
        let advised = procfs::is_mergeable(&twins.left)?;
        ensure!(
            advised == result.is_err(),
            "{result:?}, but advised {advised}"
        );
        twins.left.advise_unmergeable()?;
        ensure_unmerged(&twins.left)?;
        twins.verify()?;
        Attempt::new(&result, went_off, MADVISE_ERRORS)
    })
}

fn offer_all(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        let content = pattern::pages(3, PAGES);
        let region = Region::with_content(&content)?;
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || merge_any::set(true))?;
        region.verify(&content)?;
        let offered = merge_any::get()?;
        ensure!(
            offered == result.is_ok(),
            "{result:?}, but offered {offered}"
        );
        merge_any::set(true)?;
        ensure!(procfs::is_mergeable(&region)?, "nothing is offered");
        Attempt::new(&result, went_off, &[Errno::ENOMEM])
    })
}

fn take_all_back(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        merge_any::set(true)?;
        let twins = Twins::merged(Region::with_content)?;
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || merge_any::set(false))?;
        twins.verify()?;
        let offered = merge_any::get()?;
        ensure!(
            offered == result.is_err(),
            "{result:?}, but offered {offered}"
        );
        merge_any::set(false)?;
        for region in [&twins.left, &twins.right] {
            ensure_unmerged(region)?;
            ensure!(!procfs::is_mergeable(region)?, "it is still offered");
        }
        twins.verify()?;
        Attempt::new(&result, went_off, &[Errno::ENOMEM])
    })
}
