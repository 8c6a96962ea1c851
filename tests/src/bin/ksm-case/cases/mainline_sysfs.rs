// SPDX-License-Identifier: GPL-2.0

//! The files of `/sys/kernel/mm/ksm`, one by one as mm/ksm.c has them: defaults, limits, errors.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{bail, ensure, Context, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Counters, Run, Scanner},
    pattern,
    region::Region,
};
use nix::errno::Errno;

use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "sysfs-defaults",
        "there are exactly mainline's files, each with mainline's default",
        defaults,
    ),
    Case::new(
        "sysfs-limits",
        "every tunable takes what mainline takes, shows what it shows, refuses what it refuses",
        limits,
    ),
    Case::new(
        "sysfs-advisor",
        "the advisor's mode owns pages_to_scan, and sets it when it is switched",
        advisor,
    ),
    Case::new(
        "sysfs-busy",
        "what changes the trees is refused while pages are merged, and only then",
        busy,
    ),
    Case::new(
        "sysfs-run-2",
        "run=2 sets full_scans to 0 and leaves every tunable as it was",
        run_2,
    ),
];

/// Every file, and what it holds after the boot.
const DEFAULTS: &[(&str, &str)] = &[
    ("advisor_max_cpu", "70"),
    ("advisor_max_pages_to_scan", "30000"),
    ("advisor_min_pages_to_scan", "500"),
    ("advisor_mode", "[none] scan-time"),
    ("advisor_target_scan_time", "200"),
    ("full_scans", "0"),
    ("general_profit", "0"),
    ("ksm_zero_pages", "0"),
    ("max_page_sharing", "256"),
    ("merge_across_nodes", "1"),
    ("pages_scanned", "0"),
    ("pages_shared", "0"),
    ("pages_sharing", "0"),
    ("pages_skipped", "0"),
    ("pages_to_scan", "100"),
    ("pages_unshared", "0"),
    ("pages_volatile", "0"),
    ("run", "0"),
    ("sleep_millisecs", "20"),
    ("smart_scan", "1"),
    ("stable_node_chains", "0"),
    ("stable_node_chains_prune_millisecs", "2000"),
    ("stable_node_dups", "0"),
    ("use_zero_pages", "0"),
];

/// The file that only kernels with NUMA have.
const NUMA_FILE: &str = "merge_across_nodes";

fn has_numa() -> bool {
    Path::new("/sys/devices/system/node").exists()
}

fn is_expected(file: &str) -> bool {
    file != NUMA_FILE || has_numa()
}

fn defaults(_: &Options) -> Result<()> {
    let found: BTreeSet<_> = fs::read_dir(ksm::DIRECTORY)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let expected = DEFAULTS.iter().filter(|(file, _)| is_expected(file));
    let expected: BTreeSet<_> = expected.map(|(file, _)| (*file).to_owned()).collect();
    ensure!(found == expected, "the files are {found:?}");
    for file in &found {
        let (_, default) = DEFAULTS.iter().find(|(name, _)| name == file).unwrap();
        expect_shown(file, default)?;
    }
    Ok(())
}

/// What a write leads to.
enum Outcome {
    /// The file then shows this.
    Shows(&'static str),
    Refused(Errno),
}

use Outcome::{Refused, Shows};

const EINVAL: Outcome = Refused(Errno::EINVAL);
const ERANGE: Outcome = Refused(Errno::ERANGE);

/// For files that take a u32.
const U32: &[(&str, Outcome)] = &[
    ("0", Shows("0")),
    ("7\n", Shows("7")),
    ("+8", Shows("8")),
    ("0009\n", Shows("9")),
    ("4294967295", Shows("4294967295")),
    ("4294967296", EINVAL),
    ("18446744073709551616", EINVAL),
    ("-1", EINVAL),
    ("++1", EINVAL),
    ("0x10", EINVAL),
    ("1 ", EINVAL),
    ("1\n\n", EINVAL),
    ("\n", EINVAL),
];

/// For files that take an unsigned long.
const ULONG: &[(&str, Outcome)] = &[
    ("1", Shows("1")),
    ("+2\n", Shows("2")),
    ("18446744073709551615", Shows("18446744073709551615")),
    ("18446744073709551616", EINVAL),
    ("-1", EINVAL),
    ("x", EINVAL),
];

/// For files that take whatever kstrtobool() does.
const BOOL: &[(&str, Outcome)] = &[
    ("1", Shows("1")),
    ("0\n", Shows("0")),
    ("y", Shows("1")),
    ("N", Shows("0")),
    ("on\n", Shows("1")),
    ("OFF", Shows("0")),
    ("true", Shows("1")),
    ("f", Shows("0")),
    ("1 and more", Shows("1")),
    ("of", Shows("0")),
    ("o", EINVAL),
    ("2", EINVAL),
    (" 1", EINVAL),
    ("-1", EINVAL),
    ("\n", EINVAL),
];

const LIMITS: &[(&str, &[(&str, Outcome)])] = &[
    ("sleep_millisecs", U32),
    ("pages_to_scan", U32),
    ("stable_node_chains_prune_millisecs", U32),
    ("use_zero_pages", BOOL),
    ("smart_scan", BOOL),
    ("advisor_min_pages_to_scan", ULONG),
    ("advisor_max_pages_to_scan", ULONG),
    ("advisor_target_scan_time", ULONG),
    (
        "advisor_target_scan_time",
        &[("0", EINVAL), ("00\n", EINVAL)],
    ),
    (
        "advisor_max_cpu",
        &[
            ("100", Shows("100")),
            // It takes a long and keeps an int.
            ("4294967301", Shows("5")),
            ("18446744073709551616", EINVAL),
            ("-1", EINVAL),
        ],
    ),
    (
        "max_page_sharing",
        &[
            ("2", Shows("2")),
            ("2147483647", Shows("2147483647")),
            ("+256\n", Shows("256")),
            ("1", EINVAL),
            ("0", EINVAL),
            ("-1", EINVAL),
            ("-2147483648", EINVAL),
            ("-2147483649", ERANGE),
            ("2147483648", ERANGE),
            ("-", EINVAL),
        ],
    ),
    (
        "merge_across_nodes",
        &[
            ("0", Shows("0")),
            ("1\n", Shows("1")),
            ("2", EINVAL),
            ("18446744073709551616", ERANGE),
            ("-1", EINVAL),
            ("y", EINVAL),
        ],
    ),
    (
        "run",
        &[
            ("1", Shows("1")),
            ("0\n", Shows("0")),
            ("2", Shows("2")),
            ("+0", Shows("0")),
            ("3", EINVAL),
            ("4", EINVAL),
            ("4294967298", EINVAL),
            ("-2", EINVAL),
        ],
    ),
    (
        "advisor_mode",
        &[
            ("scan-time", Shows("none [scan-time]")),
            ("none\n", Shows("[none] scan-time")),
            ("scan-time\n", Shows("none [scan-time]")),
            ("none", Shows("[none] scan-time")),
            ("Scan-time", EINVAL),
            ("scan", EINVAL),
            ("none ", EINVAL),
            ("0", EINVAL),
        ],
    ),
];

fn limits(_: &Options) -> Result<()> {
    let _scanner = Scanner::prepare()?;
    for (file, writes) in LIMITS.iter().filter(|(file, _)| is_expected(file)) {
        for (text, outcome) in *writes {
            expect_outcome(file, text, outcome)?;
        }
        step(format!("{file}: {} writes", writes.len()));
    }
    Ok(())
}

fn expect_outcome(file: &str, text: &str, outcome: &Outcome) -> Result<()> {
    let before = shown(file)?;
    let result = write(file, text);
    let (expected, after) = match outcome {
        Shows(value) => (Ok(()), (*value).to_owned()),
        Refused(errno) => (Err(*errno), before),
    };
    ensure!(
        result == expected,
        "{file} answers {result:?} instead of {expected:?} to {text:?}"
    );
    expect_shown(file, &after).with_context(|| format!("after {text:?}"))
}

fn shown(file: &str) -> Result<String> {
    let text = control_file::read_text(ksm::path(file))?;
    let line = text.strip_suffix('\n').context("no newline at the end")?;
    Ok(line.to_owned())
}

fn expect_shown(file: &str, expected: &str) -> Result<()> {
    let now = shown(file)?;
    ensure!(now == expected, "{file} shows {now:?} and not {expected:?}");
    Ok(())
}

fn write(file: &str, text: &str) -> Result<(), Errno> {
    fs::write(ksm::path(file), text)
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

fn expect_write(file: &str, text: &str, expected: Result<(), Errno>) -> Result<()> {
    let result = write(file, text);
    ensure!(
        result == expected,
        "{file} answers {result:?} instead of {expected:?} to {text:?}"
    );
    Ok(())
}

fn advisor(_: &Options) -> Result<()> {
    step("scan-time takes pages_to_scan over, with its own minimum");
    expect_write("pages_to_scan", "123", Ok(()))?;
    expect_write("advisor_min_pages_to_scan", "600", Ok(()))?;
    expect_write("advisor_mode", "scan-time", Ok(()))?;
    expect_shown("pages_to_scan", "600")?;
    expect_write("pages_to_scan", "123", Err(Errno::EINVAL))?;
    expect_write("pages_to_scan", "junk", Err(Errno::EINVAL))?;

    step("the mode that it has already changes nothing");
    expect_write("advisor_min_pages_to_scan", "700", Ok(()))?;
    expect_write("advisor_mode", "scan-time", Ok(()))?;
    expect_shown("pages_to_scan", "600")?;

    step("none gives it back, with the default");
    expect_write("advisor_mode", "none", Ok(()))?;
    expect_shown("pages_to_scan", "100")?;
    expect_write("pages_to_scan", "123", Ok(()))?;
    expect_write("advisor_mode", "none", Ok(()))?;
    expect_shown("pages_to_scan", "123")?;

    step("a minimum that is no 32-bit number loses its upper half, as pages_to_scan is one");
    expect_write("advisor_min_pages_to_scan", "4294967299", Ok(()))?;
    expect_write("advisor_mode", "scan-time", Ok(()))?;
    expect_shown("pages_to_scan", "3")
}

fn busy(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, 8);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(8, 8, 0))?;

    step("busy, but for the value that it has already");
    for state in ["1", "0"] {
        expect_write("run", state, Ok(()))?;
        expect_write("max_page_sharing", "100", Err(Errno::EBUSY))?;
        expect_write("max_page_sharing", "256", Ok(()))?;
        expect_write("max_page_sharing", "1", Err(Errno::EINVAL))?;
        if has_numa() {
            expect_write(NUMA_FILE, "0", Err(Errno::EBUSY))?;
            expect_write(NUMA_FILE, "1", Ok(()))?;
            expect_write(NUMA_FILE, "2", Err(Errno::EINVAL))?;
        }
    }
    step("what is no matter of the trees can change at any time");
    for (file, value) in [
        ("use_zero_pages", "1"),
        ("smart_scan", "1"),
        ("pages_to_scan", "5"),
    ] {
        expect_write(file, value, Ok(()))?;
    }

    step("free again after run=2");
    ksm::set_run(Run::Unmerge)?;
    expect_write("max_page_sharing", "100", Ok(()))?;
    if has_numa() {
        expect_write(NUMA_FILE, "0", Ok(()))?;
    }
    left.verify(&content)?;
    right.verify(&content)?;

    step("free again, too, when the last mapping has gone");
    let scanner = Scanner::start()?;
    scanner.expect(Counters::stable(8, 8, 0))?;
    drop((left, right));
    scanner.expect(Counters::ZERO)?;
    ksm::set_run(Run::Stop)?;
    expect_write("max_page_sharing", "100", Ok(()))
}

fn run_2(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, 8);
    let _left = Region::mergeable(&content)?;
    let _right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(8, 8, 0))?;
    if ksm::full_scans()? == 0 {
        bail!("no full scan was counted");
    }
    let tunables: Vec<_> = [
        "pages_to_scan",
        "sleep_millisecs",
        "max_page_sharing",
        "smart_scan",
    ]
    .into_iter()
    .map(|file| Ok((file, shown(file)?)))
    .collect::<Result<_>>()?;
    ksm::set_run(Run::Unmerge)?;
    expect_shown("full_scans", "0")?;
    for (file, before) in tunables {
        expect_shown(file, &before)?;
    }
    Ok(())
}
