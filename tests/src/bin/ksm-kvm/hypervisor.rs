// SPDX-License-Identifier: GPL-2.0

//! One process of QEMU: a guest, and what it says over its serial line.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use anyhow::{anyhow, bail, ensure, Context, Result};

/// How long a guest may take until it says something.
const PATIENCE: Duration = Duration::from_secs(600);

/// Lines of what a guest said that are shown when it says no more.
const LINES_SHOWN: usize = 40;

/// What a guest is.
pub struct Machine<'a> {
    /// What it boots.
    pub kernel: &'a Path,
    /// What it finds there.
    pub initramfs: &'a Path,
    /// MiB of memory.
    pub memory: usize,
    /// Options of `ksm-kvm inside`.
    pub arguments: String,
}

/// One guest; killed if it is dropped before its end.
pub struct Hypervisor {
    process: Child,
    serial_line: ChildStdin,
    lines: Receiver<String>,
    last_lines: Vec<String>,
}

impl Hypervisor {
    /// Starts a guest.
    pub fn start(machine: &Machine) -> Result<Self> {
        let mut process = command(machine)
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

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What the guest says next of its data. What it said before now does not count.
    pub fn digest(&mut self) -> Result<String> {
        while let Ok(line) = self.lines.try_recv() {
            self.last_lines.push(line);
        }
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => bail!("no word from a guest; {}", self.said()),
                Err(RecvTimeoutError::Disconnected) => return Err(self.has_ended()?),
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

    /// Why there will be no more words.
    fn has_ended(&mut self) -> Result<anyhow::Error> {
        let status = self.process.wait().context("wait for QEMU")?;
        Ok(anyhow!("a guest ended, QEMU: {status}; {}", self.said()))
    }

    fn said(&self) -> String {
        let last = self.last_lines.len().saturating_sub(LINES_SHOWN);
        format!("it said:\n{}", self.last_lines[last..].join("\n"))
    }

    /// Ends it in order.
    pub fn end(mut self) -> Result<()> {
        self.serial_line
            .write_all(b"end\n")
            .context("serial line")?;
        let status = self.process.wait().context("wait for QEMU")?;
        ensure!(status.success(), "QEMU: {status}; {}", self.said());
        Ok(())
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A machine with a serial line and no other device.
fn command(machine: &Machine) -> Command {
    let append = format!("console=ttyS0 panic=-1 -- {}", machine.arguments);
    // The kernels of the tests leave all interrupt controllers but the CPU's own to QEMU.
    let kind = "pc,accel=kvm,kernel-irqchip=split,mem-merge=on";
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-machine", kind, "-cpu", "host"])
        .args(["-m", &format!("{}M", machine.memory)])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(machine.kernel)
        .arg("-initrd")
        .arg(machine.initramfs)
        .args(["-append", &append]);
    command
}
