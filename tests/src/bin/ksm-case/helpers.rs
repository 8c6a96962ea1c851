// SPDX-License-Identifier: GPL-2.0

//! What several cases do.

use std::{
    collections::BTreeSet,
    fs::File,
    io::IoSlice,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    domain,
    ksm::Scanner,
    merge_any, pagemap, pattern,
    peer::{Link, Peer},
    procfs::KsmStat,
    region::Region,
};
use nix::{
    fcntl::{vmsplice, SpliceFFlags},
    unistd::pipe,
};
use serde::{Deserialize, Serialize};

/// Says what the case does now.
pub fn step(what: impl std::fmt::Display) {
    println!("  - {what}");
}

/// A process that holds `content` in advised memory and verifies it whenever it is asked to.
///
/// It asks by [`Peer::round`]. The process ends after `rounds` of them.
pub fn holder(content: &[u8], rounds: usize) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        let region = Region::mergeable(content)?;
        link.step()?;
        for _ in 0..rounds {
            link.await_step()?;
            region.verify(content)?;
            link.step()?;
        }
        Ok(())
    })?;
    peer.await_step()?;
    Ok(peer)
}

/// `count` processes as made by [`holder`].
pub fn holders(count: usize, content: &[u8], rounds: usize) -> Result<Vec<Peer>> {
    (0..count).map(|_| holder(content, rounds)).collect()
}

/// Lets every process verify what it holds.
pub fn verify_all(peers: &mut [Peer]) -> Result<()> {
    peers.iter_mut().try_for_each(Peer::round)
}

/// Waits for the good end of every process.
pub fn join_all(peers: Vec<Peer>) -> Result<()> {
    peers.into_iter().try_for_each(Peer::join)
}

/// Puts the pages themselves, not copies of them, into a pipe.
pub fn splice(region: &Region) -> Result<File> {
    splice_part(region.bytes())
}

/// As [`splice`], for a part of a region.
pub fn splice_part(bytes: &[u8]) -> Result<File> {
    let (reader, writer) = pipe().context("pipe")?;
    let length = vmsplice(
        &writer,
        &[IoSlice::new(bytes)],
        SpliceFFlags::SPLICE_F_NONBLOCK,
    )
    .context("vmsplice")?;
    ensure!(length == bytes.len(), "the pipe took {length} bytes only");
    Ok(File::from(reader))
}

/// Settles, and fails unless `pages` pages are then saved.
///
/// For cases where a frame may stay KSM's own though one process alone still uses it.
pub fn expect_sharing(scanner: &Scanner, pages: u64) -> Result<()> {
    let now = scanner.settle()?;
    ensure!(now.sharing == pages, "expected {pages} sharing: {now}");
    Ok(())
}

/// Fails unless page by page both regions lie in the same frames, and KSM's flag is on each.
pub fn ensure_shared(left: &Region, right: &Region) -> Result<()> {
    let (left, right) = (pagemap::frames(left)?, pagemap::frames(right)?);
    for (index, (l, r)) in left.into_iter().zip(right).enumerate() {
        ensure!(l == r, "page {index} is in frames {l:#x} and {r:#x}");
        ensure!(pagemap::is_ksm(l)?, "frame {l:#x} is not flagged KSM");
    }
    Ok(())
}

/// Fails unless all frames of both regions differ, and KSM's flag is on none.
pub fn ensure_private(left: &Region, right: &Region) -> Result<()> {
    ensure_own_frames(left)?;
    ensure_own_frames(right)?;
    let (left, right) = (pagemap::frames(left)?, pagemap::frames(right)?);
    ensure!(
        left.iter().all(|frame| !right.contains(frame)),
        "some pages of the two still share a frame"
    );
    Ok(())
}

/// Fails unless every page of the region has a frame of its own, and KSM's flag is on none.
pub fn ensure_own_frames(region: &Region) -> Result<()> {
    let frames = pagemap::frames(region)?;
    for &frame in &frames {
        ensure!(!pagemap::is_ksm(frame)?, "frame {frame:#x} is flagged KSM");
    }
    let distinct: BTreeSet<_> = frames.iter().collect();
    ensure!(
        distinct.len() == frames.len(),
        "some pages still share a frame"
    );
    Ok(())
}

/// Fails unless KSM says of this process that it merged `pages` of its pages.
pub fn ensure_merging_pages(pages: usize) -> Result<()> {
    let found = KsmStat::read("self")?.merging_pages;
    ensure!(
        found == pages as i64,
        "ksm_stat says {found} merging pages, not {pages}"
    );
    let found = ksm_tests::procfs::merging_pages("self")?;
    ensure!(
        found == pages as i64,
        "ksm_merging_pages says {found}, not {pages}"
    );
    Ok(())
}

/// The name by which this program is started to continue a process after `execve`.
pub const AFTER_EXEC: &str = "AFTER-EXEC";

/// What a process knows about itself after `execve`.
#[derive(Serialize, Deserialize)]
pub struct AfterExec {
    /// Whether all of its memory is offered to KSM.
    pub merge_any: bool,
    /// How many of its pages are merged.
    pub merging_pages: i64,
    /// The domain, if this kernel has domains.
    pub domain: Option<u64>,
}

/// Continues this process as [`after_exec`], which answers over `link`.
pub fn exec(link: &Link) -> Result<()> {
    let error = command_after_exec(link)?.exec();
    Err(error).context("execve")
}

/// A command that starts [`after_exec`], which answers over `link`.
pub fn command_after_exec(link: &Link) -> Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(AFTER_EXEC).stdin(Stdio::from(link.socket()?));
    Ok(command)
}

/// Reports over standard input, a socket, and then waits for the other side to close it.
pub fn after_exec() -> Result<()> {
    let mut link = Link::from_stdin()?;
    link.send(AfterExec {
        merge_any: merge_any::get()?,
        merging_pages: KsmStat::read("self")?.merging_pages,
        domain: domain::of("self").ok(),
    })?;
    link.await_end()
}

/// The name by which this program is started to be a holder after `execve`.
pub const HOLDER: &str = "HOLDER";

/// As [`holder`], of `pattern::pages(seed, pages)`, in a program of its own. It ends when it is dropped.
pub fn program(seed: u64, pages: usize) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        let mut command = Command::new("/proc/self/exe");
        command.arg(HOLDER).stdin(Stdio::from(link.socket()?));
        Err(command.exec()).context("execve")
    })?;
    peer.send((seed, pages))?;
    peer.await_step()?;
    Ok(peer)
}

/// What [`program`] starts.
pub fn hold() -> Result<()> {
    let mut link = Link::from_stdin()?;
    link.wait_for_ever()?;
    let (seed, pages) = link.receive()?;
    let content = pattern::pages(seed, pages);
    let region = Region::mergeable(&content)?;
    loop {
        link.step()?;
        link.await_step()?;
        region.verify(&content)?;
    }
}
