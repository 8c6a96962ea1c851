// SPDX-License-Identifier: GPL-2.0

//! `/sys/kernel/mm/ksm`: tunables, counters, and waiting for the scanner.

use std::{
    fmt,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{anyhow, bail, ensure, Context, Result};

use crate::{control_file, own_settings, procfs::Ksmd, region::Region, wait};

/// The directory that KSM shows itself in.
pub const DIRECTORY: &str = "/sys/kernel/mm/ksm";

/// The directory of what only `ksm_rs` has.
pub const OWN_DIRECTORY: &str = "/sys/kernel/mm/ksm_rs";

/// What `run` can be set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The scanner rests; what is merged stays merged.
    Stop = 0,
    /// The scanner works.
    Merge = 1,
    /// Everything is unmerged and the scanner rests.
    Unmerge = 2,
}

/// The counters that say how much is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that KSM shares.
    pub shared: u64,
    /// Page table entries beyond the first that point to those frames: what is saved.
    pub sharing: u64,
    /// Pages looked at that have no equal.
    pub unshared: u64,
    /// Pages that change too fast, or were not looked at often enough.
    pub volatile: u64,
}

impl Counters {
    /// Nothing is merged and nothing is known.
    pub const ZERO: Self = Self::stable(0, 0, 0);

    /// Counters at rest, when nothing is volatile.
    pub const fn stable(shared: u64, sharing: u64, unshared: u64) -> Self {
        Self {
            shared,
            sharing,
            unshared,
            volatile: 0,
        }
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "shared {} sharing {} unshared {} volatile {}",
            self.shared, self.sharing, self.unshared, self.volatile
        )
    }
}

/// The path of one of KSM's files.
pub fn path(name: &str) -> PathBuf {
    PathBuf::from(DIRECTORY).join(name)
}

/// True if this kernel has KSM right now.
pub fn is_present() -> bool {
    path("run").exists()
}

/// Reads a file that holds one value.
pub fn read<T: FromStr>(name: &str) -> Result<T> {
    let text = fs::read_to_string(path(name))
        .with_context(|| format!("cannot read {}: is KSM there?", path(name).display()))?;
    text.trim()
        .parse()
        .map_err(|_| anyhow!("{name} holds no number but {text:?}"))
}

/// Writes a value as programs do: decimal and a newline.
pub fn write(name: &str, value: impl fmt::Display) -> Result<()> {
    fs::write(path(name), format!("{value}\n"))
        .with_context(|| format!("cannot write {value} to {}", path(name).display()))
}

/// Writes a tunable that not every version of KSM has.
fn write_if_present(name: &str, value: impl fmt::Display) -> Result<()> {
    if path(name).exists() {
        write(name, value)?;
    }
    Ok(())
}

/// Whether the provider of KSM is `ksm_rs`.
pub fn is_ours() -> bool {
    Path::new(OWN_DIRECTORY).exists()
}

/// Whether the module has the kernel tell of changes of mappings.
pub fn is_in_sync() -> Result<bool> {
    Ok(is_ours() && read_own::<u32>("in_sync")? == 1)
}

/// As [`read`], for a file that only `ksm_rs` has.
pub fn read_own<T: FromStr>(name: &str) -> Result<T> {
    control_file::read(Path::new(OWN_DIRECTORY).join(name))
}

/// As [`write`], for a file that only `ksm_rs` has.
pub fn write_own(name: &str, value: impl fmt::Display) -> Result<()> {
    control_file::write(Path::new(OWN_DIRECTORY).join(name), value)
}

/// Writes a tunable that not every version of `ksm_rs` has.
fn write_own_if_present(name: &str, value: impl fmt::Display) -> Result<()> {
    if Path::new(OWN_DIRECTORY).join(name).exists() {
        write_own(name, value)?;
    }
    Ok(())
}

/// Lets nobody but root read KSM's files.
pub fn hide_from_users() -> Result<()> {
    for entry in fs::read_dir(DIRECTORY)? {
        fs::set_permissions(entry?.path(), Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Sets the scanner's state.
pub fn set_run(run: Run) -> Result<()> {
    write("run", run as u8)
}

/// Reads all counters.
pub fn counters() -> Result<Counters> {
    Ok(Counters {
        shared: read("pages_shared")?,
        sharing: read("pages_sharing")?,
        unshared: read("pages_unshared")?,
        volatile: read("pages_volatile")?,
    })
}

/// Reads all counters while the scanner rests, then lets it go on.
///
/// A page that is being looked at right now is in no counter but `volatile`.
pub fn counters_at_rest() -> Result<Counters> {
    set_run(Run::Stop)?;
    let counters = counters()?;
    set_run(Run::Merge)?;
    Ok(counters)
}

/// How many times all memory was scanned.
pub fn full_scans() -> Result<u64> {
    read("full_scans")
}

/// A pause that does not end by itself, in milliseconds.
pub const FOR_EVER: u32 = 3_600_000;

/// A running scanner in a known state.
///
/// A full scan is counted only while there is memory to scan, so this holds an advised region
/// that is never touched: it adds no page to any counter.
pub struct Scanner {
    anchor: Region,
}

impl Scanner {
    /// Forgets all that was merged before, sets every tunable that influences a test, and starts.
    pub fn start() -> Result<Self> {
        let scanner = Self::prepare()?;
        set_run(Run::Merge)?;
        Ok(scanner)
    }

    /// As [`Scanner::start`], but leaves the scanner at rest.
    pub fn prepare() -> Result<Self> {
        set_run(Run::Unmerge)?;
        set_run(Run::Stop)?;
        write_if_present("advisor_mode", "none")?;
        write_if_present("smart_scan", 0)?;
        write_if_present("use_zero_pages", 0)?;
        write_if_present("merge_across_nodes", 1)?;
        write_own_if_present("huge_page_min_equal", 1)?;
        write_own_if_present("only_zero_pages", 0)?;
        write_own_if_present("domains", "marked")?;
        write_own_if_present("skip_untouched", 0)?;
        write_own_if_present("fresh_frames", 0)?;
        own_settings::apply()?;
        write("max_page_sharing", 256)?;
        write("sleep_millisecs", 0)?;
        write("pages_to_scan", 10_000)?;

        let anchor = Region::new(1)?;
        anchor.advise_mergeable()?;
        Ok(Self { anchor })
    }

    /// Takes this process out of what is scanned; there must be another.
    pub fn withdraw(&self) -> Result<()> {
        self.anchor.advise_unmergeable()
    }

    /// Waits until `n` more full scans have begun and ended.
    pub fn scans(&self, n: u64) -> Result<()> {
        let mut last = full_scans()?;
        // The scan under way may have passed our memory already, so it does not count.
        let target = last + n + 1;
        while last < target {
            last = wait::until("a full scan", || {
                let now = full_scans()?;
                Ok((now > last).then_some(now))
            })?;
        }
        Ok(())
    }

    /// Lets the scanner rest, except for scans by [`Scanner::scan_once`].
    pub fn scan_on_demand(&self) -> Result<()> {
        set_run(Run::Stop)?;
        write("sleep_millisecs", FOR_EVER)?;
        set_run(Run::Merge)?;
        // The scan that was interrupted, or one more.
        self.scan_once()
    }

    /// Has all memory scanned once, from where the last scan has ended.
    pub fn scan_once(&self) -> Result<()> {
        let (_, scans) = self.take_step()?;
        ensure!(scans > 0, "pages_to_scan is less than a scan");
        Ok(())
    }

    /// Ends the scanner's pause, which is about [`FOR_EVER`], and waits for the next one: meanwhile
    /// it has scanned `pages_to_scan` pages, or as much as a step may take, or come to the end of a
    /// scan. Returns the numbers of pages and of full scans.
    pub fn take_step(&self) -> Result<(u64, u64)> {
        let thread = Ksmd::find()?;
        let progress = || anyhow::Ok((read::<u64>("pages_scanned")?, full_scans()?));
        wait::until("a pause", || Ok(thread.is_asleep()?.then_some(())))?;
        let (before, sleeps) = (progress()?, thread.sleeps()?);
        // A change of the pause ends it.
        let pause: u32 = read("sleep_millisecs")?;
        write("sleep_millisecs", pause + 1)?;
        wait::until("a step", || {
            Ok((thread.is_asleep()? && thread.sleeps()? > sleeps).then_some(()))
        })?;
        let after = progress()?;
        Ok((after.0 - before.0, after.1 - before.1))
    }

    /// Scans until the counters stay as they are, and returns them.
    pub fn settle(&self) -> Result<Counters> {
        // One scan to see a checksum, one to see that it stays, one to merge what is left.
        self.scans(3)?;
        let mut last = counters_at_rest()?;
        for _ in 0..MAX_SETTLE_ROUNDS {
            self.scans(2)?;
            let now = counters_at_rest()?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        bail!("the counters never come to rest: {last}");
    }

    /// Settles, and fails unless the counters are then as `expected`.
    pub fn expect(&self, expected: Counters) -> Result<()> {
        let got = self.settle()?;
        if got != expected {
            bail!("expected {expected}, but found {got}");
        }
        Ok(())
    }

    /// As [`Scanner::expect`], when processes have just ended: the scanner may have been the last user
    /// of their memory, which a work item then gives back.
    pub fn expect_after_exit(&self, expected: Counters) -> Result<()> {
        wait::until("the memory of ended processes to be given back", || {
            Ok((counters()? == expected).then_some(()))
        })?;
        self.expect(expected)
    }
}

/// After this many comparisons of two scans the counters ought to be at rest.
const MAX_SETTLE_ROUNDS: u32 = 50;

impl Drop for Scanner {
    fn drop(&mut self) {
        // Leave nothing behind for the next program. If this fails, that one will notice.
        let _ = set_run(Run::Unmerge);
        let _ = set_run(Run::Stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_readable() {
        assert_eq!(
            Counters::stable(1, 2, 3).to_string(),
            "shared 1 sharing 2 unshared 3 volatile 0"
        );
    }
}
