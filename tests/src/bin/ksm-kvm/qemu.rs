// SPDX-License-Identifier: GPL-2.0

//! Guests that run Linux in QEMU.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure, Context, Result};
use clap::Args;
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    MIB, PAGE_SIZE,
};

use crate::record::Watch;

/// How long a guest may take until it says something.
const PATIENCE: Duration = Duration::from_secs(600);

/// At this part of the duplicates the time is taken.
const NEARLY_ALL: f64 = 0.95;

/// Each guest has every page of its files twice: in its page cache, and as a copy.
const COPIES: usize = 2;

#[derive(Args)]
pub struct Options {
    /// The kernel that guests boot.
    #[arg(long)]
    kernel: PathBuf,

    /// Number of guests.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..))]
    guests: u32,

    /// MiB of memory that each has.
    #[arg(long, default_value_t = 128)]
    memory: usize,

    /// MiB of the same files that each holds.
    #[arg(long, default_value_t = 8)]
    mib: usize,

    /// MiB of data that each has for itself.
    #[arg(long, default_value_t = 2)]
    own_mib: usize,

    /// Print how the merging went, in JSON, as the last line.
    #[arg(long)]
    json: bool,
}

/// Boots guests, merges their memory, and lets them verify it.
pub fn run(options: &Options) -> Result<()> {
    let scanner = Scanner::prepare()?;
    let start = Instant::now();
    let guests = 0..options.guests;
    let mut guests: Vec<_> = guests
        .map(|seed| Qemu::start(options, seed))
        .collect::<Result<_>>()?;
    let digest = common_digest(&mut guests)?;
    let seconds = start.elapsed().as_secs();
    println!(
        "  - {} guests run after {seconds} s: {digest}",
        guests.len()
    );

    let pages = options.mib * MIB / PAGE_SIZE;
    let duplicates = (options.guests as usize * COPIES - 1) * pages;
    let record = Watch::start()?.record(&scanner, duplicates as u64, NEARLY_ALL)?;
    println!("  - {}", ksm::counters()?);
    for _ in 0..3 {
        ensure!(common_digest(&mut guests)? == digest, "DATA LOST");
    }
    ksm::set_run(Run::Unmerge)?;
    let left = ksm::counters()?;
    ensure!(left == Counters::ZERO, "run=2 left pages merged: {left}");
    ensure!(common_digest(&mut guests)? == digest, "DATA LOST");
    println!("  - the guests agree, merged and unmerged");
    ksm::set_run(Run::Merge)?;
    end_all(guests, &digest)?;
    println!(
        "{} guests of QEMU saved {} pages, of {duplicates} that their files are; they agree",
        options.guests, record.pages_sharing
    );
    if options.json {
        println!("{}", serde_json::to_string(&record)?);
    }
    Ok(())
}

/// Ends one after the other, while those that are left verify their memory.
fn end_all(mut guests: Vec<Qemu>, digest: &str) -> Result<()> {
    while let Some(guest) = guests.pop() {
        guest.end()?;
        if !guests.is_empty() {
            ensure!(common_digest(&mut guests)? == digest, "DATA LOST");
        }
    }
    Ok(())
}

/// The digest of which all guests say, from now on, that it is that of their files.
fn common_digest(guests: &mut [Qemu]) -> Result<String> {
    let digests = guests.iter_mut().map(Qemu::digest);
    let digests: Vec<_> = digests.collect::<Result<_>>()?;
    ensure!(
        digests.iter().all(|digest| *digest == digests[0]),
        "the guests disagree: {digests:?}"
    );
    Ok(digests[0].clone())
}

/// One guest; killed if it is dropped before its end.
struct Qemu {
    process: Child,
    serial_line: ChildStdin,
    lines: Receiver<String>,
    last_lines: Vec<String>,
}

impl Qemu {
    fn start(options: &Options, seed: u32) -> Result<Self> {
        let mut process = command(options, seed)?
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("qemu-system-x86_64")?;
        let serial_line = process.stdin.take().context("no input")?;
        let output = process.stdout.take().context("no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let read = BufReader::new(output).lines().map_while(Result::ok);
            // When nobody listens any more, it is over.
            let _ = read.into_iter().try_for_each(|line| sender.send(line));
        });
        Ok(Self {
            process,
            serial_line,
            lines,
            last_lines: Vec::new(),
        })
    }

    /// What the guest says next of its files. What it said before now does not count.
    fn digest(&mut self) -> Result<String> {
        while let Ok(line) = self.lines.try_recv() {
            self.last_lines.push(line);
        }
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("no word from a guest; {}", self.said()),
                Err(RecvTimeoutError::Disconnected) => bail!("a guest ended; {}", self.said()),
            };
            let word = line.split_once("ksm-kvm: ").map(|(_, word)| word.trim());
            match word.and_then(|word| word.split_once(' ')) {
                Some(("round", round)) => {
                    let (_, digest) = round.split_once(' ').context("half a line")?;
                    return Ok(digest.to_owned());
                }
                Some(("error", error)) => bail!("a guest says: {error}"),
                _ => self.last_lines.push(line),
            }
        }
    }

    fn said(&self) -> String {
        let last = self.last_lines.len().saturating_sub(40);
        format!("it said:\n{}", self.last_lines[last..].join("\n"))
    }

    /// Ends it in order.
    fn end(mut self) -> Result<()> {
        self.serial_line
            .write_all(b"end\n")
            .context("serial line")?;
        let status = self.process.wait().context("wait for QEMU")?;
        ensure!(status.success(), "QEMU: {status}; {}", self.said());
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The guest has this machine's files, read-only, and this program as its first one.
fn command(options: &Options, seed: u32) -> Result<Command> {
    let program = std::env::current_exe().context("our own path")?;
    let arguments = [
        "console=ttyS0 quiet panic=-1 acpi=noirq ro root=root rootfstype=9p",
        "rootflags=version=9p2000.L,trans=virtio,access=any,msize=262144,cache=loose",
        &format!("init={}", program.display()),
        "-- inside",
        &format!("--mib {} --own-mib {}", options.mib, options.own_mib),
        &format!("--seed {seed}"),
    ];
    // The kernels of the tests leave all interrupt controllers but the CPU's own to QEMU.
    let machine = "pc,accel=kvm,kernel-irqchip=split,mem-merge=on";
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", machine, "-cpu", "host"])
        .args(["-m", &format!("{}M", options.memory)])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .args([
            "-fsdev",
            "local,id=root,path=/,security_model=none,multidevs=remap",
        ])
        .args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"])
        .arg("-kernel")
        .arg(&options.kernel)
        .args(["-append", &arguments.join(" ")]);
    Ok(command)
}
