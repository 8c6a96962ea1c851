// SPDX-License-Identifier: GPL-2.0

//! What the kernel says of itself, on the console or not.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{bail, Context, Result};

/// What must never be said. `tools/vm` knows more of it, but looks at the end only.
const TROUBLE: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "KASAN: ",
    "UBSAN: ",
    "Bad page state",
    "Bad rss-counter",
    "possible ",
    "suspicious RCU usage",
    "segfault at",
];

/// A record of the log is no longer than this.
const RECORD: usize = 8192;

/// The kernel's log from some moment on.
pub struct KernelLog(File);

impl KernelLog {
    /// From now on. What the kernel says only once it may say again.
    pub fn from_now() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("cannot open /dev/kmsg")?;
        file.seek(SeekFrom::End(0))?;
        // A kernel may have no debugfs; then the first sequence that fails is the only one.
        let _ = fs::write("/sys/kernel/debug/clear_warn_once", "1");
        Ok(Self(file))
    }

    /// Fails if the kernel has reported a fault since.
    pub fn check(&mut self) -> Result<()> {
        let mut buffer = [0; RECORD];
        loop {
            match self.0.read(&mut buffer) {
                Ok(length) => check_record(&String::from_utf8_lossy(&buffer[..length]))?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {
                    bail!("the kernel has overwritten what it said: log_buf_len is too small")
                }
                Err(error) => return Err(error).context("reading /dev/kmsg"),
            }
        }
    }
}

/// A record is `priority,sequence,time,flags;text`, and lines of attributes.
fn check_record(record: &str) -> Result<()> {
    let text = record.split_once(';').map_or(record, |(_, text)| text);
    let line = text.lines().next().unwrap_or_default();
    let is_error = priority(record).is_some_and(|level| level <= libc::LOG_ERR);
    if TROUBLE.iter().any(|words| line.contains(words)) || is_error && line.starts_with("ksm") {
        bail!("the kernel says: {line}");
    }
    Ok(())
}

fn priority(record: &str) -> Option<i32> {
    /// The facility stands above these bits.
    const LEVEL: i32 = 7;
    let number: i32 = record.split_once(',')?.0.parse().ok()?;
    Some(number & LEVEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_noticed() {
        assert!(check_record("4,1,2,-;WARNING: mm/rmap.c:1\n").is_err());
        assert!(check_record("3,1,2,-;ksm_rs: stable node dropped\n").is_err());
        assert!(check_record("1,1,2,-;BUG: Bad rss-counter\n").is_err());
    }

    #[test]
    fn other_lines_are_not() {
        assert!(check_record("6,1,2,-;ksm_rs: loaded\n").is_ok());
        assert!(check_record("3,1,2,-;a disk is slow\n").is_ok());
        assert!(check_record("3,1,2,-;Out of memory: Killed process 7 (ksm-case)\n").is_ok());
    }
}
