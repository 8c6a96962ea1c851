// SPDX-License-Identifier: GPL-2.0

//! The directory `ksm_rs` of debugfs, for root and for tools such as `ksm why`. Nothing in it is
//! stable.
//!
//! | file | what it is |
//! |---|---|
//! | `not_merged` | write the number of a process; read why its pages are not merged, in pages: `no_equal`, `passed_over` (no equal for long), `has_equal` (in use, or in a large folio that is not worth a split), `changing` (or new). It is empty if the scan has not met the process. Two users at a time would read each other's numbers, so a user locks the file by `flock()` |
//!
//! In kernels with fault injection the files of [`race_knobs`] are there, too.

#![deny(unsafe_code)]

#[cfg(CONFIG_FAULT_INJECTION_DEBUG_FS)]
use crate::testing::race_knobs;
use crate::{
    ksmd::Ksm,
    mm::process::address_space_of,
    records::census::Census, //
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
pub(crate) type Directory = Pin<KBox<Scope<Question>>>;

/// The process that was asked about.
pub(crate) struct Question {
    ksm: Arc<Ksm>,
    pid: Atomic<i32>,
}

/// Makes the directory.
pub(crate) fn directory(ksm: Arc<Ksm>) -> Result<Directory> {
    let question = Question {
        ksm,
        pid: Atomic::new(0),
    };
    let scope = Scope::dir(question, c"ksm_rs", |question, dir| {
        dir.read_write_callback_file(c"not_merged", question, &answer, &ask);
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
fn ask(question: &Question, text: &mut UserSliceReader) -> Result {
    let mut bytes = [0; LONGEST_NUMBER];
    let length = text.len();
    let bytes = bytes.get_mut(..length).ok_or(EINVAL)?;
    text.read_slice(bytes)?;
    let text = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    let pid = text.trim().parse().map_err(|_| EINVAL)?;
    question.pid.store(pid, Relaxed);
    Ok(())
}

fn answer(question: &Question, out: &mut fmt::Formatter<'_>) -> fmt::Result {
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
