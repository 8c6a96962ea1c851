// SPDX-License-Identifier: GPL-2.0

//! What an ordinary user can do: read everything, change nothing.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{chown, symlink, PermissionsExt},
    path::Path,
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{ksm, merge_any, procfs, region::Region};
use nix::{
    sys::signal::{kill, Signal},
    unistd::{setgid, setuid, Gid, Pid, Uid},
};

use crate::outcome::{in_new_process, show, show_io, Row};

const NOBODY: u32 = 65534;

/// Something to do to a file.
type Attempt = (&'static str, fn(&Path) -> io::Result<()>);

const ATTEMPTS: &[Attempt] = &[
    ("open for writing", |path| {
        OpenOptions::new().write(true).open(path).map(drop)
    }),
    ("open for both", |path| {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(path).map(drop)
    }),
    ("open for appending", |path| {
        OpenOptions::new().append(true).open(path).map(drop)
    }),
    ("create", |path| File::create(path).map(drop)),
    ("chmod", |path| {
        fs::set_permissions(path, Permissions::from_mode(0o666))
    }),
    ("chown", |path| chown(path, Some(NOBODY), None)),
    ("remove", |path| fs::remove_file(path)),
    ("rename", |path| fs::rename(path, path.with_extension("x"))),
    ("hard link", |path| {
        fs::hard_link(path, path.with_extension("x"))
    }),
    ("another file", |path| {
        File::create(path.with_extension("x")).map(drop)
    }),
    ("a directory", |path| {
        fs::create_dir(path.with_extension("x"))
    }),
    ("a symbolic link", |path| {
        symlink("run", path.with_extension("x"))
    }),
];

pub fn table() -> Result<Vec<Row>> {
    let ksmd = procfs::find_process("ksmd")?.context("there is no ksmd")?;
    let before = contents()?;
    let rows = in_new_process(|| {
        setgid(Gid::from_raw(NOBODY)).context("setgid")?;
        setuid(Uid::from_raw(NOBODY)).context("setuid")?;
        let mut rows = Vec::new();
        for (name, _) in contents()? {
            let path = ksm::path(&name);
            rows.extend(ATTEMPTS.iter().map(|(what, attempt)| Row {
                request: format!("nobody: {name}: {what}"),
                outcome: show_io(attempt(&path)),
            }));
        }
        rows.extend(own_memory(ksmd)?);
        Ok(rows)
    })?;
    ensure!(contents()? == before, "an ordinary user has changed a file");
    Ok(rows)
}

/// What every user may do to memory of his own, and not to the scanner.
fn own_memory(ksmd: u32) -> Result<Vec<Row>> {
    let region = Region::new(1)?;
    let row = |request: &str, outcome: String| Row {
        request: format!("nobody: {request}"),
        outcome,
    };
    let ksmd = Pid::from_raw(ksmd.try_into()?);
    Ok(vec![
        row("advise", format!("{:?}", region.advise_mergeable().is_ok())),
        row("merge any", show(merge_any::set(true))),
        row("merge any, off", show(merge_any::set(false))),
        row("kill ksmd", show(kill(ksmd, Signal::SIGKILL))),
        row("stop ksmd", show(kill(ksmd, Signal::SIGSTOP))),
        row(
            "ksm_stat of process 1",
            show_io(fs::read("/proc/1/ksm_stat").map(drop)),
        ),
    ])
}

/// All files and what they show: none is hidden from an ordinary user.
fn contents() -> Result<Vec<(String, String)>> {
    let mut contents = fs::read_dir(ksm::DIRECTORY)?
        .map(|entry| {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let text = fs::read_to_string(ksm::path(&name))
                .with_context(|| format!("cannot read {name}"))?;
            Ok((name, text))
        })
        .collect::<Result<Vec<_>>>()?;
    contents.sort();
    Ok(contents)
}
