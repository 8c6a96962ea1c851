// SPDX-License-Identifier: GPL-2.0

//! `/proc/PID/ksm_domain`, and the rule that says which domains count.

use std::path::Path;

use anyhow::{ensure, Result};
use ksm_tests::{control_file, domain, faults::Fuse, ksm, region::Region};
use nix::errno::Errno;

use crate::{
    attempt::{in_child, Attempt},
    entry::Entry,
    files::write_to,
    memory::{ensure_unmerged, Twins},
};

const ERRORS: &[Errno] = &[Errno::ENOMEM];

pub fn entries() -> Vec<Entry> {
    if !ksm::is_ours() {
        return Vec::new();
    }
    let own = |text: &'static str| {
        Entry::new(
            format!("ksm_domain: {text}, while pages are merged"),
            move |nth| change(Path::new("/proc/self/ksm_domain"), text, nth),
        )
    };
    vec![
        own("7"),
        own("private"),
        Entry::new("domains: private, while pages are merged", |nth| {
            change(
                &Path::new(ksm::OWN_DIRECTORY).join("domains"),
                "private",
                nth,
            )
        }),
    ]
}

/// Writes `text` to a file that parts the pages of this process.
fn change(path: &Path, text: &str, nth: u32) -> Result<Attempt> {
    in_child(|_| {
        let twins = Twins::merged(Region::mergeable)?;
        let before = control_file::read_text(path)?;
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || write_to(path, text.as_bytes()))?;
        twins.verify()?;
        if result.is_err() {
            let after = control_file::read_text(path)?;
            ensure!(before == after, "refused, but it is {after:?} now");
            control_file::write(path, text)?;
        }
        ensure_unmerged(&twins.left)?;
        ensure_unmerged(&twins.right)?;
        twins.verify()?;
        twins.merge()?;
        domain::set_rule("marked")?;
        Attempt::new(&result, went_off, ERRORS)
    })
}
