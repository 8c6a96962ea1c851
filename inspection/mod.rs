// SPDX-License-Identifier: GPL-2.0

//! The directory `ksm_rs` of debugfs, for root and for tools such as `ksm why`. Nothing in it is
//! stable.
//!
//! | file | what it is |
//! |---|---|
//! | `domains` | a line for each domain that has pages with records: its number, which is greater than 4294967295 for one that nobody can join, then `processes`, `shared` (KSM pages), `sharing` (what they save), `waiting` (pages with records that are not merged), `zero` (pages that the zero page has replaced), all in pages but the first, and `metadata` (of these records, in bytes) |
//! | `not_merged` | write the number of a process; read why its pages are not merged, in pages: `no_equal`, `passed_over` (no equal for long), `has_equal` (in use, or in a large folio that is not worth a split), `changing` (or new). It is empty if the scan has not met the process. Two users at a time would read each other's numbers, so a user locks the file by `flock()` |
//!
//! In kernels with fault injection the files of [`race_knobs`] are there, too.

#![deny(unsafe_code)]

#[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
use crate::testing::race_knobs;
use crate::{
    following::Following,
    ksmd::Ksm,
    mm::process::address_space_of,
    records::{
        census::Census,
        tenants::Tenant, //
    },
    rmap_item::BYTES_PER_PAGE, //
};
use kernel::{
    debugfs::Scope,
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    uaccess::UserSliceReader, //
};

/// Digits of a number, its sign, and the end of a line.
const LONGEST_NUMBER: usize = 12;

/// The directory; dropping it removes it.
pub(crate) type Directory<F> = Pin<KBox<Scope<Question<F>>>>;

/// The process that was asked about.
pub(crate) struct Question<F: Following> {
    ksm: Arc<Ksm<F>>,
    pid: Atomic<i32>,
}

/// Makes the directory.
pub(crate) fn directory<F: Following>(ksm: Arc<Ksm<F>>) -> Result<Directory<F>> {
    let question = Question {
        ksm,
        pid: Atomic::new(0),
    };
    let scope = Scope::dir(question, c"ksm_rs", |question, dir| {
        dir.read_write_callback_file(c"not_merged", question, &answer::<F>, &ask::<F>);
        dir.read_callback_file(c"domains", question, &list_domains::<F>);
        #[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
        race_knobs::add_files(dir);
    });
    KBox::pin_init(scope, GFP_KERNEL)
}

/// Takes the number of a process.
///
/// # Errors
///
/// `EINVAL` if it is no number, `EFAULT` if it cannot be read.
fn ask<F: Following>(question: &Question<F>, text: &mut UserSliceReader) -> Result {
    let mut bytes = [0; LONGEST_NUMBER];
    let length = text.len();
    let bytes = bytes.get_mut(..length).ok_or(EINVAL)?;
    text.read_slice(bytes)?;
    let text = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    let pid = text.trim().parse().map_err(|_| EINVAL)?;
    question.pid.store(pid, Relaxed);
    Ok(())
}

fn list_domains<F: Following>(question: &Question<F>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let tenants = question.ksm.tenants().map_err(|_| fmt::Error)?;
    for (domain, tenant) in tenants.iter() {
        let Tenant {
            processes,
            shared,
            merging,
            items,
            zero,
        } = tenant;
        // A KSM page whose mappings have gone a moment ago is one still.
        let sharing = merging.saturating_sub(*shared);
        let waiting = items.saturating_sub(*merging);
        let metadata = items * BYTES_PER_PAGE;
        write!(
            out,
            "{} processes {processes} shared {shared} ",
            domain.number()
        )?;
        write!(out, "sharing {sharing} waiting {waiting} ")?;
        writeln!(out, "zero {zero} metadata {metadata}")?;
    }
    Ok(())
}

fn answer<F: Following>(question: &Question<F>, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(mm) = address_space_of(question.pid.load(Relaxed)) else {
        return Ok(());
    };
    let Some(census) = question.ksm.census(&mm) else {
        return Ok(());
    };
    let Census {
        no_equal,
        passed_over,
        has_equal,
        changing,
    } = census;
    writeln!(out, "no_equal {no_equal}")?;
    writeln!(out, "passed_over {passed_over}")?;
    writeln!(out, "has_equal {has_equal}")?;
    writeln!(out, "changing {changing}")
}
