// SPDX-License-Identifier: GPL-2.0

//! Programs that are known to use KSM's files, replayed byte for byte.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use anyhow::{bail, ensure, Context, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Scanner},
    merge_any, pattern,
    peer::Peer,
    procfs,
    region::Region,
    wait,
};
use nix::errno::Errno;

use crate::{
    case::{Case, Options},
    helpers::{holders, join_all, step, verify_all},
};

pub const CASES: &[Case] = &[
    program(
        "compat-ksmtuned",
        "ksmtuned sets its numbers and then run",
        |_| replay(KSMTUNED),
    ),
    program("compat-ksmctl", "ksmctl starts and stops", |_| {
        replay(KSMCTL)
    }),
    program("compat-proxmox", "Proxmox reads pages_sharing", |_| {
        replay(PROXMOX)
    }),
    program(
        "compat-kubevirt",
        "KubeVirt writes without a newline",
        |_| replay(KUBEVIRT),
    ),
    program(
        "compat-harvester",
        "Harvester finds ksmd, and waits after run=2",
        harvester,
    ),
    program(
        "compat-libvirt",
        "libvirt reads and writes node parameters",
        |_| replay(LIBVIRT),
    ),
    program("compat-mom", "oVirt's MOM writes its four files", |_| {
        replay(MOM)
    }),
    program(
        "compat-node-exporter",
        "node_exporter needs every file",
        |_| replay(NODE_EXPORTER),
    ),
    program(
        "compat-netdata",
        "netdata reads the first word of four files",
        |_| replay(NETDATA),
    ),
    program(
        "compat-pcp",
        "PCP reads every entry and knows them by prefix",
        pcp,
    ),
    program(
        "compat-uksmdstats",
        "uksmdstats reads numbers of chains",
        |_| replay(UKSMDSTATS),
    ),
    program(
        "compat-ksm-stat",
        "topmem and ksm-get parse 255 bytes of ksm_stat",
        ksm_stat,
    ),
    program("compat-smaps", "readers of smaps look for mg", smaps),
    program(
        "compat-prctl",
        "systemd's MemoryKSM= is a prctl that must succeed",
        systemd,
    ),
    program(
        "compat-madvise",
        "programs advise once, at their start",
        madvise,
    ),
    Case::new(
        "compat-all",
        "every program that is replayed by a case of its own elsewhere, one after the other",
        all,
    )
    .on("x86"),
];

/// A case that takes no longer than a boot, which is long in the emulated lane.
const fn program(name: &'static str, what: &'static str, run: fn(&Options) -> Result<()>) -> Case {
    Case::new(name, what, run).on("um")
}

fn all(options: &Options) -> Result<()> {
    for case in CASES.iter().filter(|case| case.name != "compat-all") {
        step(case.name);
        reset()?;
        (case.run)(options).context(case.name)?;
    }
    Ok(())
}

/// What a program finds after a boot.
fn reset() -> Result<()> {
    for (file, value) in [
        ("run", "2"),
        ("run", "0"),
        ("pages_to_scan", "100"),
        ("sleep_millisecs", "20"),
        ("smart_scan", "1"),
        ("max_page_sharing", "256"),
    ] {
        ksm::write(file, value)?;
    }
    if ksm::path(NUMA_FILE).exists() {
        ksm::write(NUMA_FILE, 1)?;
    }
    Ok(())
}

/// The file that kernels without NUMA lack, with or without ksm_rs.
const NUMA_FILE: &str = "merge_across_nodes";

/// One thing that a program does.
enum Step {
    /// Opens the file, truncates it, and writes this at once.
    Writes(&'static str, &'static str),
    /// Reads exactly this.
    Reads(&'static str, &'static str),
    /// Reads a decimal and a newline, which fits into so many bits.
    ReadsNumber(&'static str, u32),
    /// The same, but the number may be negative.
    ReadsSigned(&'static str),
    /// Makes sure that there is no such file.
    Lacks(&'static str),
}

use Step::{Lacks, Reads, ReadsNumber, ReadsSigned, Writes};

const KSMTUNED: &[Step] = &[
    Writes("pages_to_scan", "1250\n"),
    Writes("sleep_millisecs", "100\n"),
    Writes("run", "1\n"),
    Reads("run", "1\n"),
    Reads("pages_to_scan", "1250\n"),
    Reads("sleep_millisecs", "100\n"),
    // More memory is in use now.
    Writes("pages_to_scan", "64\n"),
    Writes("sleep_millisecs", "10\n"),
    Writes("run", "1\n"),
    Reads("pages_to_scan", "64\n"),
    Writes("run", "0\n"),
    Reads("run", "0\n"),
];

const KSMCTL: &[Step] = &[
    // Where it finds this it writes half of the machine's memory into it.
    Lacks("max_kernel_pages"),
    Writes("run", "1\n"),
    Reads("run", "1\n"),
    Writes("run", "0\n"),
    Reads("run", "0\n"),
];

const PROXMOX: &[Step] = &[
    ReadsNumber("pages_sharing", 64),
    Reads("pages_sharing", "0\n"),
];

const KUBEVIRT: &[Step] = &[
    Reads("run", "0\n"),
    ReadsNumber("pages_to_scan", 64),
    Writes("sleep_millisecs", "20"),
    Writes("pages_to_scan", "150"),
    Writes("run", "1"),
    Reads("run", "1\n"),
    Reads("pages_to_scan", "150\n"),
    Reads("sleep_millisecs", "20\n"),
    Writes("run", "0"),
    Reads("run", "0\n"),
];

const LIBVIRT: &[Step] = &[
    ReadsNumber("pages_to_scan", 32),
    ReadsNumber("sleep_millisecs", 32),
    ReadsNumber(NUMA_FILE, 32),
    ReadsNumber("pages_shared", 64),
    ReadsNumber("pages_sharing", 64),
    ReadsNumber("pages_unshared", 64),
    ReadsNumber("pages_volatile", 64),
    ReadsNumber("full_scans", 64),
    Writes("pages_to_scan", "200"),
    Writes("sleep_millisecs", "30"),
    Writes(NUMA_FILE, "0"),
    Reads("pages_to_scan", "200\n"),
    Reads("sleep_millisecs", "30\n"),
    Reads(NUMA_FILE, "0\n"),
    Writes(NUMA_FILE, "1"),
];

const MOM: &[Step] = &[
    Writes("run", "1"),
    Writes("pages_to_scan", "64"),
    Writes("sleep_millisecs", "10"),
    Writes(NUMA_FILE, "1"),
    Reads("run", "1\n"),
    Reads("pages_to_scan", "64\n"),
    Reads("sleep_millisecs", "10\n"),
    Reads(NUMA_FILE, "1\n"),
    Writes("run", "0"),
];

const NODE_EXPORTER: &[Step] = &[
    ReadsNumber("full_scans", 64),
    ReadsNumber(NUMA_FILE, 64),
    ReadsNumber("pages_shared", 64),
    ReadsNumber("pages_sharing", 64),
    ReadsNumber("pages_to_scan", 64),
    ReadsNumber("pages_unshared", 64),
    ReadsNumber("pages_volatile", 64),
    ReadsNumber("run", 64),
    ReadsNumber("sleep_millisecs", 64),
    ReadsSigned("general_profit"),
];

const NETDATA: &[Step] = &[
    ReadsNumber("pages_shared", 64),
    ReadsNumber("pages_sharing", 64),
    ReadsNumber("pages_unshared", 64),
    ReadsNumber("pages_volatile", 64),
];

const UKSMDSTATS: &[Step] = &[
    ReadsNumber("max_page_sharing", 64),
    ReadsNumber("stable_node_chains", 64),
    ReadsNumber("stable_node_dups", 64),
    ReadsNumber("stable_node_chains_prune_millisecs", 64),
    ReadsNumber("use_zero_pages", 64),
    ReadsSigned("general_profit"),
];

fn replay(steps: &[Step]) -> Result<()> {
    let numa = ksm::path(NUMA_FILE).exists();
    for step in steps {
        let file = match step {
            Writes(file, _) | Reads(file, _) => file,
            ReadsNumber(file, _) | ReadsSigned(file) | Lacks(file) => file,
        };
        if numa || *file != NUMA_FILE {
            replay_step(step).with_context(|| (*file).to_owned())?;
        }
    }
    Ok(())
}

fn replay_step(step: &Step) -> Result<()> {
    match *step {
        Writes(file, text) => fs::write(ksm::path(file), text).context("the write fails"),
        Reads(file, expected) => {
            let text = control_file::read_text(ksm::path(file))?;
            ensure!(text == expected, "it reads {text:?} and not {expected:?}");
            Ok(())
        }
        ReadsNumber(file, bits) => {
            let text = control_file::read_text(ksm::path(file))?;
            let line = text.strip_suffix('\n').context("no newline at the end")?;
            ensure!(
                line.bytes().all(|byte| byte.is_ascii_digit()),
                "no number: {line:?}"
            );
            let number: u64 = line.parse()?;
            ensure!(
                bits == 64 || number >> bits == 0,
                "{number} needs more than {bits} bits"
            );
            Ok(())
        }
        ReadsSigned(file) => {
            let text = control_file::read_text(ksm::path(file))?;
            let line = text.strip_suffix('\n').context("no newline at the end")?;
            line.parse::<i64>()
                .map(drop)
                .with_context(|| format!("no number: {line:?}"))
        }
        Lacks(file) => {
            ensure!(!ksm::path(file).exists(), "it is there");
            Ok(())
        }
    }
}

/// Waits for what Harvester's node agent and its like wait for.
fn harvester(_: &Options) -> Result<()> {
    let content = pattern::pages(1, 64);
    let mut peers = holders(3, &content, 1)?;
    ensure!(
        procfs::find_process("ksmd")?.is_some(),
        "there is no process ksmd"
    );
    // It starts the scanner before it says how fast, and may say 0.
    replay(&[
        Writes("run", "1\n"),
        Writes("pages_to_scan", "0\n"),
        Reads("pages_to_scan", "0\n"),
        Writes("pages_to_scan", "1000\n"),
        Writes("sleep_millisecs", "5\n"),
    ])?;
    wait::until("merged pages", || {
        Ok((ksm::read::<u64>("pages_sharing")? >= 128).then_some(()))
    })?;
    replay(&[
        ReadsNumber("pages_shared", 64),
        ReadsNumber("pages_unshared", 64),
        ReadsNumber("pages_volatile", 64),
        ReadsNumber("full_scans", 64),
        ReadsNumber("stable_node_chains", 64),
        ReadsNumber("stable_node_dups", 64),
        ReadsNumber(NUMA_FILE, 64),
        Writes("run", "2\n"),
        Reads("run", "2\n"),
    ])?;
    wait::until("the end of all sharing", || {
        let now = ksm::counters()?;
        Ok((now.shared + now.sharing + now.unshared == 0).then_some(()))
    })?;
    replay(&[Writes("run", "0\n")])?;
    verify_all(&mut peers)?;
    join_all(peers)
}

/// The names that PCP's agent knows. It takes an entry for the first of these that the entry's
/// name begins with.
const PCP_NAMES: &[&str] = &[
    "full_scans",
    "merge_across_nodes",
    "pages_shared",
    "pages_sharing",
    "pages_to_scan",
    "pages_unshared",
    "pages_volatile",
    "run",
    "sleep_millisecs",
];

fn pcp(_: &Options) -> Result<()> {
    let directory = fs::metadata(ksm::DIRECTORY)?;
    ensure!(
        directory.permissions().mode() & 0o555 == 0o555,
        "not everybody can list it"
    );
    let mut taken = BTreeMap::new();
    for entry in fs::read_dir(ksm::DIRECTORY)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let metadata = entry.metadata()?;
        ensure!(metadata.is_file(), "{name} is no file");
        ensure!(
            metadata.mode() & 0o444 == 0o444,
            "not everybody can read {name}"
        );
        let text = control_file::read_text(entry.path())?;
        ensure!(
            text.ends_with('\n') && text.lines().count() == 1,
            "{name}: {text:?}"
        );
        if let Some(known) = PCP_NAMES.iter().find(|known| name.starts_with(**known)) {
            let other = taken.insert(*known, name.clone());
            ensure!(
                other.is_none(),
                "{name} and {other:?} both count as {known}"
            );
            ensure!(text.trim_end().parse::<u64>().is_ok(), "{name}: {text:?}");
        }
    }
    for known in PCP_NAMES {
        if *known != NUMA_FILE || ksm::path(NUMA_FILE).exists() {
            ensure!(
                taken.get(known).is_some_and(|name| name == known),
                "no {known}"
            );
        }
    }
    Ok(())
}

fn ksm_stat(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, 32);
    let _other = Region::mergeable(&content)?;
    let mut peer = Peer::fork(|link| {
        merge_any::set(true)?;
        let _region = Region::with_content(&content)?;
        link.step()?;
        link.await_step()
    })?;
    peer.await_step()?;
    scanner.settle()?;
    let text = control_file::read_text(format!("/proc/{}/ksm_stat", peer.pid()))?;
    let head = &text[..text.len().min(255)];
    let profit = head
        .lines()
        .find_map(|line| line.strip_prefix("ksm_process_profit "));
    let profit: i64 = profit
        .context("no profit in the first 255 bytes")?
        .parse()?;
    step(format!("{} bytes; a profit of {profit}", text.len()));
    ensure!(
        head.contains("ksm_merge_any: yes\n"),
        "no ksm_merge_any: yes in {head:?}"
    );
    peer.step()?;
    peer.join()
}

fn smaps(_: &Options) -> Result<()> {
    let region = Region::with_content(&pattern::pages(3, 4))?;
    ensure!(!procfs::is_mergeable(&region)?, "mg before the advice");
    region.advise_mergeable()?;
    ensure!(procfs::is_mergeable(&region)?, "no mg after the advice");
    Ok(())
}

fn systemd(_: &Options) -> Result<()> {
    Peer::fork(|_| match merge_any::set(true) {
        Ok(()) => {
            ensure!(merge_any::get()?, "it succeeds and does nothing");
            Ok(())
        }
        Err(Errno::EOPNOTSUPP) => Ok(()),
        Err(other) => bail!("PR_SET_MEMORY_MERGE fails with {other}"),
    })?
    .join()
}

fn madvise(_: &Options) -> Result<()> {
    // While the scanner rests: they ask once and never again.
    ksm::write("run", 0)?;
    let content = pattern::pages(4, 16);
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    ksm::write("pages_to_scan", 10_000)?;
    ksm::write("run", 1)?;
    wait::until("merged pages", || {
        Ok((ksm::read::<u64>("pages_sharing")? >= 16).then_some(()))
    })?;
    left.verify(&content)?;
    right.verify(&content)?;
    ksm::write("run", 2)?;
    ksm::write("run", 0)
}
