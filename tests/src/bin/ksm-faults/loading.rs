// SPDX-License-Identifier: GPL-2.0

//! Loading the module, and unloading it.

use std::fs::File;

use anyhow::{Context, Result};
use ksm_tests::{
    faults::Fuse,
    ksm::{self, Run},
    module,
    region::Region,
};
use nix::errno::Errno;

use crate::{
    attempt::{in_child, Attempt},
    entry::Entry,
    memory::Twins,
};

/// The process id of the thread that starts all other threads of the kernel.
const KTHREADD: u32 = 2;

/// EAGAIN: fork's error, of which kthreadd makes one.
const LOAD_ERRORS: &[Errno] = &[Errno::ENOMEM, Errno::EAGAIN];

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::new("insmod", |nth| load(nth, Fuse::of_this_thread)).unloaded(),
        Entry::new("insmod, in kthreadd", |nth| {
            load(nth, || Fuse::of(KTHREADD))
        })
        .unloaded(),
        Entry::new("insmod, beside an advised process", adopt).unloaded(),
        Entry::new("rmmod", unload).unloaded(),
    ]
}

fn file() -> Result<File> {
    let path = module::file().context("$KSM_RS_KO is not set")?;
    File::open(&path).with_context(|| format!("cannot open {}", path.display()))
}

fn load(nth: u32, fuse: fn() -> Result<Fuse>) -> Result<Attempt> {
    in_child(|_| {
        let (file, fuse) = (file()?, fuse()?);
        let (result, went_off) = fuse.during(nth, || module::try_load(&file))?;
        match result {
            Ok(()) => use_and_unload()?,
            // The next attempt is the one without this fault.
            Err(_) => module::ensure_gone()?,
        }
        Attempt::new(&result, went_off, LOAD_ERRORS)
    })
}

fn use_and_unload() -> Result<()> {
    ksm::counters()?;
    ksm::set_run(Run::Merge)?;
    ksm::set_run(Run::Unmerge)?;
    module::unload()?;
    module::ensure_gone()
}

/// Whom the module could not adopt is told so by nobody, and merged once he asks again.
fn adopt(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        let twins = Twins::new(Region::mergeable)?;
        let (file, fuse) = (file()?, Fuse::of_this_thread()?);
        let (result, went_off) = fuse.during(nth, || module::try_load(&file))?;
        if result.is_ok() {
            twins.left.advise_mergeable()?;
            twins.merge()?;
            ksm::set_run(Run::Unmerge)?;
            module::unload()?;
        }
        module::ensure_gone()?;
        twins.verify()?;
        Attempt::new(&result, went_off, LOAD_ERRORS)
    })
}

fn unload(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        module::load(&module::file().context("$KSM_RS_KO is not set")?)?;
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, module::try_unload)?;
        if result.is_err() {
            module::unload()?;
        }
        module::ensure_gone()?;
        Attempt::new(&result, went_off, &[Errno::ENOMEM])
    })
}
