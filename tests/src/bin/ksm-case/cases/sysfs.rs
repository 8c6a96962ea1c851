// SPDX-License-Identifier: GPL-2.0

//! The files of `/sys/kernel/mm/ksm`: what they are called, hold, take and refuse.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
};

use anyhow::{bail, ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Scanner},
    peer::Peer,
};
use nix::{
    errno::Errno,
    unistd::{setgid, setuid, Gid, Uid},
};

use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "sysfs-files",
        "every file has a name, a mode and a format that programs rely on",
        files,
    ),
    Case::new(
        "sysfs-good-input",
        "every tunable takes its values with and without a newline",
        good_input,
    ),
    Case::new(
        "sysfs-bad-input",
        "bad input to any file is refused with the right errno and changes nothing",
        bad_input,
    ),
    Case::new(
        "sysfs-read-only",
        "files that only show something cannot be opened for writing, even by root",
        read_only,
    ),
    Case::new(
        "sysfs-unprivileged",
        "an ordinary user can read every file and write to none",
        unprivileged,
    ),
];

/// What a file takes.
#[derive(Clone, Copy)]
enum Kind {
    /// Nothing: it shows an unsigned number.
    Counter,
    /// Nothing: it shows a number that may be negative.
    SignedCounter,
    /// A decimal number from `min` to `max`.
    Number {
        min: u64,
        max: u64,
        /// The error for a number that the kernel's type for it cannot hold.
        overflow: Errno,
    },
    /// 0 or 1, or a word that means the same.
    Switch,
    /// One of two words.
    AdvisorMode,
    /// One of three words.
    Domains,
}

use Kind::{AdvisorMode, Counter, Domains, SignedCounter, Switch};

const fn number(min: u64, max: u64) -> Kind {
    Kind::Number {
        min,
        max,
        overflow: Errno::EINVAL,
    }
}

const U32: Kind = number(0, u32::MAX as u64);
const U64: Kind = number(0, u64::MAX);

/// Every file that KSM may show; those that only `ksm_rs` has stand in a directory beside the others.
const FILES: &[(&str, Kind)] = &[
    ("../ksm_rs/domains", Domains),
    ("../ksm_rs/fresh_frames", Switch),
    (
        "../ksm_rs/huge_page_min_equal",
        Kind::Number {
            min: 1,
            max: 512,
            overflow: Errno::ERANGE,
        },
    ),
    ("../ksm_rs/in_sync", Counter),
    ("../ksm_rs/only_zero_pages", Switch),
    ("../ksm_rs/pages_untouched", Counter),
    ("../ksm_rs/pages_untracked", Counter),
    ("../ksm_rs/skip_untouched", Switch),
    ("advisor_max_cpu", U64),
    ("advisor_max_pages_to_scan", U64),
    ("advisor_min_pages_to_scan", U64),
    ("advisor_mode", AdvisorMode),
    ("advisor_target_scan_time", number(1, u64::MAX)),
    ("full_scans", Counter),
    ("general_profit", SignedCounter),
    ("ksm_zero_pages", Counter),
    (
        "max_page_sharing",
        Kind::Number {
            min: 2,
            max: i32::MAX as u64,
            overflow: Errno::ERANGE,
        },
    ),
    (
        "merge_across_nodes",
        Kind::Number {
            min: 0,
            max: 1,
            overflow: Errno::ERANGE,
        },
    ),
    ("pages_scanned", Counter),
    ("pages_shared", Counter),
    ("pages_sharing", Counter),
    ("pages_skipped", Counter),
    ("pages_to_scan", U32),
    ("pages_unshared", Counter),
    ("pages_volatile", Counter),
    ("run", number(0, 2)),
    ("sleep_millisecs", U32),
    ("smart_scan", Switch),
    ("stable_node_chains", Counter),
    ("stable_node_chains_prune_millisecs", U32),
    ("stable_node_dups", Counter),
    ("use_zero_pages", Switch),
];

/// Files that must be there; the others belong to features that a kernel may lack.
const REQUIRED: &[&str] = &[
    "run",
    "pages_to_scan",
    "sleep_millisecs",
    "full_scans",
    "pages_scanned",
    "pages_shared",
    "pages_sharing",
    "pages_unshared",
    "pages_volatile",
    "max_page_sharing",
    "general_profit",
];

impl Kind {
    fn is_writable(self) -> bool {
        !matches!(self, Counter | SignedCounter)
    }

    fn mode(self) -> u32 {
        if self.is_writable() {
            0o644
        } else {
            0o444
        }
    }

    /// True if `text` is what such a file may hold.
    fn accepts_content(self, text: &str) -> bool {
        let Some(line) = text.strip_suffix('\n') else {
            return false;
        };
        match self {
            SignedCounter => is_decimal(line.strip_prefix('-').unwrap_or(line)),
            AdvisorMode => ["[none] scan-time", "none [scan-time]"].contains(&line),
            Domains => ["shared", "marked", "private"].contains(&line),
            Switch => ["0", "1"].contains(&line),
            Counter | Kind::Number { .. } => is_decimal(line),
        }
    }

    /// Values to write, each with what the file shows afterwards.
    fn good_values(self) -> Vec<(String, String)> {
        let same = |value: u64| (value.to_string(), value.to_string());
        let pair = |value: &str, shown: &str| (value.to_owned(), shown.to_owned());
        match self {
            Counter | SignedCounter => vec![],
            // Large numbers make the scanner sleep or run for ever; their ends are tried below.
            Kind::Number { min, max, .. } if max < 3 => (min..=max).map(same).collect(),
            Kind::Number { min, max, .. } => vec![same(min), same(min + 1), same(max.min(1000))],
            Switch => vec![
                pair("0", "0"),
                pair("1", "1"),
                pair("n", "0"),
                pair("Y", "1"),
            ],
            AdvisorMode => vec![
                pair("scan-time", "none [scan-time]"),
                pair("none", "[none] scan-time"),
            ],
            Domains => vec![
                pair("shared", "shared"),
                pair("private", "private"),
                pair("marked", "marked"),
            ],
        }
    }

    /// What must be refused, each with its error.
    fn bad_values(self) -> Vec<(Vec<u8>, Errno)> {
        let mut bad: Vec<(Vec<u8>, Errno)> = NONSENSE
            .iter()
            .map(|text| (text.to_vec(), Errno::EINVAL))
            .collect();
        if let Kind::Number { min, max, overflow } = self {
            bad.extend(NO_DECIMAL.iter().map(|t| (t.to_vec(), Errno::EINVAL)));
            if let Some(below) = min.checked_sub(1) {
                bad.push((below.to_string().into(), Errno::EINVAL));
            }
            // A small limit is the file's own, a large one that of the type.
            let above_limit = if max < 3 { Errno::EINVAL } else { overflow };
            bad.push(((u128::from(max) + 1).to_string().into(), above_limit));
            bad.push(((u128::from(u64::MAX) + 1).to_string().into(), overflow));
            bad.push((vec![b'1'; 200], overflow));
            bad.push((vec![b'1'; 5000], overflow));
        }
        bad
    }
}

fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Refused by every writable file.
const NONSENSE: &[&[u8]] = &[
    b"\n",
    b" ",
    b" 1",
    b"\t0\n",
    b"-1",
    b"--1",
    b"abc",
    b"\xff\xfe\xfd",
    b"\x01\x02\x03\x04",
    b"\x001",
    &[b'-'; 5000],
    &[b' '; 5000],
];

/// Refused by files that take a decimal number, though some switches would take them.
const NO_DECIMAL: &[&[u8]] = &[
    b"1 2", b"1 ", b"1\n\n", b"1\n2", b"0x10", b"1.5", b"1e3", b"1,0", b"yes",
];

/// The files of this kernel.
fn present() -> impl Iterator<Item = (&'static str, Kind)> {
    FILES
        .iter()
        .copied()
        .filter(|(name, _)| ksm::path(name).exists())
}

fn content(name: &str) -> Result<String> {
    fs::read_to_string(ksm::path(name)).with_context(|| format!("cannot read {name}"))
}

/// One `write` system call, and its result.
fn write_once(name: &str, bytes: &[u8]) -> Result<Result<usize, Errno>> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(ksm::path(name))
        .with_context(|| format!("cannot open {name}"))?;
    Ok(file.write(bytes).map_err(|error| errno(&error)))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

fn files(_: &Options) -> Result<()> {
    let _scanner = Scanner::start()?;
    let mut found = BTreeSet::new();
    let mut names = names_in(ksm::DIRECTORY, "")?;
    if ksm::is_ours() {
        names.extend(names_in(ksm::OWN_DIRECTORY, "../ksm_rs/")?);
    }
    for name in names {
        let Some(&(_, kind)) = FILES.iter().find(|(known, _)| *known == name) else {
            bail!("nobody knows the file {name:?}");
        };
        check_file(&name, kind)?;
        found.insert(name);
    }
    for name in REQUIRED {
        ensure!(found.contains(*name), "{name} is missing");
    }
    step(format!("{} files are as they should be", found.len()));
    Ok(())
}

/// The files of a directory, as [`FILES`] has them.
fn names_in(directory: &str, prefix: &str) -> Result<Vec<String>> {
    let name_of = |entry: io::Result<fs::DirEntry>| {
        let name = entry?.file_name().into_string().unwrap_or_default();
        Ok(format!("{prefix}{name}"))
    };
    fs::read_dir(directory)?.map(name_of).collect()
}

fn check_file(name: &str, kind: Kind) -> Result<()> {
    let metadata = fs::metadata(ksm::path(name))?;
    ensure!(metadata.is_file(), "{name} is no file");
    ensure!(
        metadata.mode() & 0o7777 == kind.mode(),
        "{name} has mode {:o}",
        metadata.mode()
    );
    ensure!(metadata.uid() == 0, "{name} does not belong to root");
    let text = content(name)?;
    ensure!(kind.accepts_content(&text), "{name} holds {text:?}");
    Ok(())
}

fn good_input(_: &Options) -> Result<()> {
    let _scanner = Scanner::prepare()?;
    for (name, kind) in present() {
        let before = content(name)?;
        for (value, shown) in kind.good_values() {
            for ending in ["", "\n"] {
                let text = format!("{value}{ending}");
                let result = write_once(name, text.as_bytes())?;
                ensure!(
                    result == Ok(text.len()),
                    "{name} answers {result:?} to {text:?}"
                );
                let now = content(name)?;
                ensure!(
                    now.trim_end() == shown,
                    "{name} shows {now:?} after {text:?}"
                );
            }
        }
        if matches!(kind, Kind::Number { .. } | Switch) {
            ksm::write(name, before.trim_end())?;
        }
    }
    Ok(())
}

fn bad_input(_: &Options) -> Result<()> {
    let _scanner = Scanner::prepare()?;
    for (name, kind) in present().filter(|(_, kind)| kind.is_writable()) {
        let before = content(name)?;
        let bad = kind.bad_values();
        step(format!("{name}: {} kinds of bad input", bad.len()));
        for (bytes, expected) in bad {
            let excerpt = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            let result = write_once(name, &bytes)?;
            ensure!(
                result == Err(expected),
                "{name} answers {result:?} instead of {expected:?} to {excerpt:?}"
            );
            ensure!(content(name)? == before, "{excerpt:?} changed {name}");
        }
        // The file system takes an empty write for done, and nobody sees it.
        ensure!(write_once(name, b"")? == Ok(0), "{name} refuses nothing");
        ensure!(content(name)? == before, "an empty write changed {name}");
    }
    Ok(())
}

fn read_only(_: &Options) -> Result<()> {
    for (name, _) in present().filter(|(_, kind)| !kind.is_writable()) {
        ensure_not_writable(name)?;
    }
    Ok(())
}

fn ensure_not_writable(name: &str) -> Result<()> {
    match OpenOptions::new().write(true).open(ksm::path(name)) {
        Ok(_) => bail!("{name} can be opened for writing"),
        Err(error) => ensure!(
            errno(&error) == Errno::EACCES,
            "opening {name} for writing gives {error}"
        ),
    }
    Ok(())
}

fn unprivileged(_: &Options) -> Result<()> {
    const NOBODY: u32 = 65534;
    Peer::fork(|_| {
        setgid(Gid::from_raw(NOBODY)).context("setgid")?;
        setuid(Uid::from_raw(NOBODY)).context("setuid")?;
        for (name, _) in present() {
            File::open(ksm::path(name)).with_context(|| format!("cannot open {name}"))?;
            content(name)?;
            ensure_not_writable(name)?;
        }
        Ok(())
    })?
    .join()
}
