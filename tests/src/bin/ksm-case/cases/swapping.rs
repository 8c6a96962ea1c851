// SPDX-License-Identifier: GPL-2.0

//! KSM pages that go out to swap, and come back.

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    cgroup::Cgroup,
    domain,
    ksm::{self, Counters, Run, Scanner},
    module, pagemap, pattern,
    peer::Peer,
    procfs,
    region::Region,
    swap::{self, Swap, Zswap},
    wait, MIB, PAGE_SIZE,
};
use nix::unistd::Pid;

use crate::{
    case::{Case, Options, Skip},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "swap-merged",
        "KSM pages are swapped out and in again, and everybody's data is as it was",
        swap_merged,
    ),
    Case::new(
        "swap-write",
        "swapped KSM pages are written to by one process and read by the others",
        swap_write,
    ),
    Case::new(
        "swap-run-2",
        "KSM pages that lie in swap survive run=2, and merge again later",
        swap_run_2,
    ),
    Case::new(
        "swap-zswap",
        "KSM pages are kept compressed in memory by zswap, and everybody's data is as it was",
        swap_zswap,
    )
    .on("x86"),
    Case::new(
        "swap-scan",
        "merging, swapping and unmerging all at once lose nothing",
        swap_while_scanning,
    ),
    Case::new(
        "swap-first-ends",
        "the first process to read a swapped KSM page ends, and the others read it from the swap cache",
        swap_first_ends,
    ),
    Case::new(
        "swap-moved-fork",
        "KSM pages that a fork has moved before they became such are swapped out from there too",
        swap_moved_fork,
    ),
    Case::new(
        "swap-parent",
        "what only a fork has advised is swapped out from its parent too",
        swap_parent,
    ),
    Case::new(
        "swap-domains",
        "a page that lies in swap for a process of another domain becomes no KSM page",
        swap_domains,
    ),
    Case::new(
        "swap-rmmod",
        "KSM pages that lie in swap survive the module",
        swap_rmmod,
    )
    .unloaded(),
];

const PAGES: usize = 512;
const RCU_PATIENCE: Duration = Duration::from_secs(1);
const SHARERS: usize = 4;

/// Swap, a scanner, and processes in a group that all hold the same.
struct Setting {
    // Dropped in this order: swap ends when nobody has anything in it.
    peers: Vec<Peer>,
    group: Cgroup,
    swap: Swap,
}

/// What a process is told to do with its memory.
const VERIFY: u8 = 0;
const WRITE: u8 = 1;
const END: u8 = 2;

/// Holds `content`, and does as it is told until it is told to end.
fn sharer(content: &[u8]) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        link.await_step()?;
        let mut expected = content.to_vec();
        let mut region = Region::mergeable(&expected)?;
        link.step()?;
        loop {
            match link.receive::<u8>()? {
                VERIFY => region.verify(&expected)?,
                WRITE => {
                    for index in 0..region.pages() {
                        region.page_mut(index)[99] ^= 0x55;
                        expected[index * PAGE_SIZE + 99] ^= 0x55;
                    }
                    region.verify(&expected)?;
                }
                _ => return region.verify(&expected),
            }
            link.step()?;
        }
    })?;
    peer.send(())?;
    peer.await_step()?;
    Ok(peer)
}

fn tell(peer: &mut Peer, what: u8) -> Result<()> {
    peer.send(what)?;
    peer.await_step()
}

impl Setting {
    fn new(content: &[u8]) -> Result<Self> {
        // They are members of the group from the start, so that their memory counts there.
        let (swap, group) = swap_and_group("swapped")?;
        let mut peers = Vec::new();
        for _ in 0..SHARERS {
            peers.push(sharer(content)?);
        }
        Ok(Self { peers, group, swap })
    }

    /// Reclaims until what is shared lies in swap; gives the number of pages that went there.
    fn reclaim(&self) -> Result<i64> {
        let before = procfs::vmstat("pswpout")?;
        // Some KSM pages may stay in memory.
        let enough = self.peers.len() * PAGES * 19 / 20;
        wait::until("what is shared to be swapped out", || {
            self.group.reclaim(16 * MIB);
            Ok((self.absent()? >= enough).then_some(()))
        })?;
        Ok(procfs::vmstat("pswpout")? - before)
    }

    /// Pages offered to KSM that are not in memory.
    fn absent(&self) -> Result<usize> {
        self.peers.iter().map(absent_of).sum()
    }

    fn tell_all(&mut self, what: u8) -> Result<()> {
        self.peers.iter_mut().try_for_each(|peer| tell(peer, what))
    }

    /// Ends all processes in peace, and then swap.
    fn end(self) -> Result<()> {
        for mut peer in self.peers {
            peer.send(END)?;
            peer.join()?;
        }
        drop(self.group);
        self.swap.off()
    }
}

/// Pages that a process offers to KSM and that are not in memory.
fn absent_of(peer: &Peer) -> Result<usize> {
    absent_in(peer.pid())
}

fn absent_in(process: Pid) -> Result<usize> {
    let process = process.as_raw() as u32;
    let mut absent = 0;
    for range in procfs::mergeable_ranges(process)? {
        let frames = pagemap::frames_of(process, &range)?;
        absent += frames.iter().filter(|frame| frame.is_none()).count();
    }
    Ok(absent)
}

/// How often a swapped-in page had to be copied as it was a KSM page once.
fn copies() -> Result<i64> {
    procfs::vmstat("ksm_swpin_copy")
}

/// Lets all look at their memory, which was KSM pages in swap, and so many have to be given
/// copies: all but the one that reads it in.
fn verify_swapped(setting: &mut Setting, receivers: usize) -> Result<i64> {
    let before = copies()?;
    setting.tell_all(VERIFY)?;
    let copied = copies()? - before;
    // Some KSM pages may have stayed in memory.
    let expected = receivers * PAGES * 9 / 10;
    ensure!(
        copied >= expected as i64,
        "{copied} pages were copied when they came in, and not {expected}"
    );
    Ok(copied)
}

fn swap_merged(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let mut setting = Setting::new(&content)?;
    scanner.expect(Counters::stable(512, 3 * 512, 0))?;
    ksm::set_run(Run::Stop)?;

    let out = setting.reclaim()?;
    step(format!("{out} pages were swapped out"));
    let copied = verify_swapped(&mut setting, SHARERS - 1)?;
    step(format!(
        "all verified; {copied} pages were copied when they came in"
    ));

    step("merged again, and all data intact");
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(512, 3 * 512, 0))?;
    setting.tell_all(VERIFY)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    setting.tell_all(VERIFY)?;
    setting.end()
}

fn swap_zswap(_: &Options) -> Result<()> {
    let Some(zswap) = Zswap::on()? else {
        return Err(Skip("this kernel has no zswap".into()).into());
    };
    let scanner = Scanner::start()?;
    let content = pattern::pages(9, PAGES);
    let mut setting = Setting::new(&content)?;
    scanner.expect(Counters::stable(512, 3 * 512, 0))?;
    let before = procfs::vmstat("zswpout")?;
    let written = setting.reclaim()?;
    let kept = procfs::vmstat("zswpout")? - before;
    step(format!(
        "zswap keeps {kept} pages, and {written} went to the device"
    ));
    ensure!(kept >= PAGES as i64 * 9 / 10, "zswap got {kept} pages only");
    // Writers get a copy of their own, readers what was there.
    tell(&mut setting.peers[0], WRITE)?;
    setting.tell_all(VERIFY)?;
    step("one process has written, and all have verified their data");
    scanner.settle()?;
    setting.tell_all(VERIFY)?;
    drop(zswap);
    setting.end()
}

fn swap_write(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, PAGES);
    let mut setting = Setting::new(&content)?;
    // In the last round the two that have written are equal again.
    for (round, receivers) in [3, 2, 2].into_iter().enumerate() {
        scanner.settle()?;
        ksm::set_run(Run::Stop)?;
        let before = procfs::vmstat("cow_ksm")?;
        let out = setting.reclaim()?;
        step(format!(
            "round {round}: {out} pages out, then one process writes"
        ));
        tell(&mut setting.peers[round], WRITE)?;
        verify_swapped(&mut setting, receivers)?;
        let cow = procfs::vmstat("cow_ksm")? - before;
        step(format!("cow_ksm rose by {cow}"));
        ksm::set_run(Run::Merge)?;
    }
    setting.end()
}

fn swap_run_2(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(3, PAGES);
    let mut setting = Setting::new(&content)?;
    for _ in 0..2 {
        scanner.expect(Counters::stable(512, 3 * 512, 0))?;
        ksm::set_run(Run::Stop)?;
        let out = setting.reclaim()?;
        step(format!("{out} pages out, then run=2"));
        ksm::set_run(Run::Unmerge)?;
        let now = ksm::counters()?;
        ensure!(now == Counters::ZERO, "left over: {now}");
        verify_swapped(&mut setting, SHARERS - 1)?;
        ksm::set_run(Run::Merge)?;
    }
    scanner.expect(Counters::stable(512, 3 * 512, 0))?;
    setting.tell_all(VERIFY)?;
    setting.end()
}

/// Swap, and this process in a group of its own.
fn swap_and_group(name: &str) -> Result<(Swap, Cgroup)> {
    if !swap::is_available() {
        return Err(Skip("this kernel has no zram to swap to".into()).into());
    }
    let swap = Swap::on(64 * MIB)?;
    let group = Cgroup::new(name)?;
    group.add(nix::unistd::Pid::this())?;
    Ok((swap, group))
}

/// The reverse walk has to find pages at an address that nobody has listed.
fn swap_moved_fork(_: &Options) -> Result<()> {
    let (swap, group) = swap_and_group("moved")?;
    let scanner = Scanner::prepare()?;
    let content = pattern::pages(8, PAGES);
    let mut twins = [Region::mergeable(&content)?, Region::mergeable(&content)?];
    let mut peer = Peer::fork(|link| {
        for twin in &mut twins {
            twin.advise_unmergeable()?;
            twin.relocate()?;
            link.send(twin.address())?;
        }
        link.receive::<()>()?;
        twins.iter().try_for_each(|twin| twin.verify(&content))
    })?;
    let starts = [peer.receive::<usize>()?, peer.receive()?];
    let ranges = starts.map(|start| start..start + PAGES * PAGE_SIZE);
    let process = peer.pid().as_raw() as u32;

    merge_and_evict(&scanner, &group, (process, &ranges))?;
    end_intact(peer, twins, &content)?;
    drop(group);
    swap.off()
}

/// The reverse walk has to find pages in a vma that the one which was merged comes from.
fn swap_parent(_: &Options) -> Result<()> {
    let (swap, group) = swap_and_group("parent")?;
    let scanner = Scanner::prepare()?;
    let content = pattern::pages(9, PAGES);
    let twins = [
        Region::with_content(&content)?,
        Region::with_content(&content)?,
    ];
    let mut peer = Peer::fork(|link| {
        twins.iter().try_for_each(Region::advise_mergeable)?;
        link.step()?;
        link.receive::<()>()?;
        twins.iter().try_for_each(|twin| twin.verify(&content))
    })?;
    peer.await_step()?;

    let ranges =
        [0, 1].map(|twin| twins[twin].address()..twins[twin].address() + twins[twin].len());
    merge_and_evict(&scanner, &group, (std::process::id(), &ranges))?;
    end_intact(peer, twins, &content)?;
    drop(group);
    swap.off()
}

/// Has both processes look at their twins, and end with them.
fn end_intact(mut peer: Peer, twins: [Region; 2], content: &[u8]) -> Result<()> {
    peer.step()?;
    peer.join()?;
    twins.iter().try_for_each(|twin| twin.verify(content))
}

/// Merges twins, one of which a process has that is not asked for it, and has both swapped out
/// there.
fn merge_and_evict(
    scanner: &Scanner,
    group: &Cgroup,
    (process, ranges): (u32, &[Range<usize>]),
) -> Result<()> {
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(PAGES as u64, PAGES as u64, 0))?;
    ksm::set_run(Run::Stop)?;
    let frames = present(process, ranges)?;
    let are_ksm: Result<Vec<_>> = frames.into_iter().map(pagemap::is_ksm).collect();
    let merged = are_ksm?.into_iter().filter(|is_ksm| *is_ksm).count();
    step(format!("{merged} pages that it has have become KSM pages"));
    ensure!(merged == PAGES);

    wait::until("all of its pages to be swapped out", || {
        group.reclaim(16 * MIB);
        // Some may stay in memory.
        Ok((present(process, ranges)?.len() <= PAGES / 20).then_some(()))
    })?;
    step("and all have left it");
    Ok(())
}

/// The frames that a process has in these ranges.
fn present(process: u32, ranges: &[Range<usize>]) -> Result<Vec<u64>> {
    let mut present = Vec::new();
    for range in ranges {
        present.extend(pagemap::frames_of(process, range)?.into_iter().flatten());
    }
    Ok(present)
}

/// What was swapped in stays in the swap cache while others have not asked for it, and goes on to
/// name its first user, whose anon_vma is freed by then; a debug kernel sees who looks at that.
fn swap_first_ends(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(6, PAGES);
    let mut setting = Setting::new(&content)?;
    scanner.expect(Counters::stable(512, 3 * 512, 0))?;
    ksm::set_run(Run::Stop)?;
    let out = setting.reclaim()?;
    // KSM's own records would keep the anon_vmas that they name.
    ksm::set_run(Run::Unmerge)?;
    let mut first = setting.peers.remove(0);
    tell(&mut first, VERIFY)?;
    first.send(END)?;
    first.join()?;
    // Long enough for RCU to free what the first one has left.
    thread::sleep(RCU_PATIENCE);
    // The first of those that are left would not get a copy of what it read from swap itself.
    let copied = verify_swapped(&mut setting, SHARERS - 1)?;
    step(format!(
        "{out} pages out; {copied} were copied after the first had ended"
    ));
    setting.tell_all(WRITE)?;
    setting.end()
}

fn swap_while_scanning(options: &Options) -> Result<()> {
    let _scanner = Scanner::start()?;
    let content = pattern::pages(4, PAGES);
    let mut setting = Setting::new(&content)?;
    let end = Instant::now() + Duration::from_secs(options.seconds / 2);
    let patience = end + wait::STALL_LIMIT;
    let mut rounds = 0usize;
    let before = copies()?;
    while Instant::now() < end || (copies()? == before && Instant::now() < patience) {
        for _ in 0..10 {
            setting.group.reclaim(16 * MIB);
        }
        let what = if rounds % 2 == 0 { WRITE } else { VERIFY };
        tell(&mut setting.peers[rounds % SHARERS], what)?;
        if rounds % 7 == 6 {
            ksm::set_run(Run::Unmerge)?;
            ksm::set_run(Run::Merge)?;
        }
        setting.tell_all(VERIFY)?;
        rounds += 1;
    }
    let copied = copies()? - before;
    step(format!(
        "{rounds} rounds, {copied} copies of KSM pages that came back from swap"
    ));
    ensure!(copied > 0, "no KSM page came back from swap");
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    setting.tell_all(VERIFY)?;
    setting.end()
}

fn swap_rmmod(_: &Options) -> Result<()> {
    let file = module::file().context("$KSM_RS_KO is not set")?;
    module::load(&file)?;
    let content = pattern::pages(5, PAGES);
    let scanner = Scanner::start()?;
    let mut setting = Setting::new(&content)?;
    scanner.expect(Counters::stable(512, 3 * 512, 0))?;
    let out = setting.reclaim()?;
    step(format!("{out} pages out, then the module goes"));
    drop(scanner);
    module::unload()?;
    let copied = verify_swapped(&mut setting, SHARERS - 1)?;
    step(format!(
        "{copied} pages were copied when they came in, without the module"
    ));
    setting.tell_all(WRITE)?;

    step("and a new one merges them again");
    module::load(&file)?;
    let scanner = Scanner::start()?;
    scanner.expect(Counters::stable(512, 3 * 512, 0))?;
    setting.tell_all(VERIFY)?;
    drop(scanner);
    module::unload()?;
    setting.end()
}

/// A parent in the common domain and a fork of it in another have the same pages, in swap. The fork reads
/// them in, and they are merged with those of its new domain, before the parent does.
fn swap_domains(_: &Options) -> Result<()> {
    let (swap, group) = swap_and_group("domains")?;
    let scanner = Scanner::prepare()?;
    domain::set_rule("marked")?;
    let content = pattern::pages(8, 2 * PAGES);
    let (first, last) = content.split_at(PAGES * PAGE_SIZE);
    // Whose page becomes the KSM page is a matter of who is scanned first.
    let mut earlier = sharer(first)?;
    let (mut parent, child) = family(&content)?;
    let mut later = sharer(last)?;
    for pid in [child, earlier.pid(), later.pid()] {
        domain::set(pid, 1)?;
    }
    step("all lies in swap, and all but the parent read it in");
    wait::until("pages to be swapped out", || {
        group.reclaim(16 * MIB);
        let absent = absent_of(&parent)? + absent_in(child)?;
        Ok((absent >= 4 * PAGES * 19 / 20).then_some(()))
    })?;
    tell(&mut parent, FORK_VERIFIES)?;
    tell(&mut earlier, VERIFY)?;
    tell(&mut later, VERIFY)?;
    step("it merges with those of its domain, and the parent reads its pages in");
    ksm::set_run(Run::Merge)?;
    let merged = scanner.settle()?;
    ensure!(
        merged.sharing >= PAGES as u64,
        "too few are merged: {merged}"
    );
    tell(&mut parent, VERIFY)?;
    for other in [child, earlier.pid(), later.pid()] {
        let common = domain::common_ksm_frames(parent.pid(), other)?;
        ensure!(common == 0, "{common} KSM pages are of both domains");
    }
    for mut peer in [parent, earlier, later] {
        peer.send(END)?;
        peer.join()?;
    }
    drop(group);
    swap.off()
}

/// What the parent of [`family`] is told, beside what a [`sharer`] is.
const FORK_VERIFIES: u8 = 3;

/// A process that holds `content`, and a fork of it with the same pages.
fn family(content: &[u8]) -> Result<(Peer, Pid)> {
    let mut parent = Peer::fork(|link| {
        let region = Region::mergeable(content)?;
        let mut child = Peer::fork(|link| loop {
            link.step()?;
            link.await_step()?;
            region.verify(content)?;
        })?;
        child.await_step()?;
        link.send(child.pid().as_raw())?;
        loop {
            match link.receive::<u8>()? {
                VERIFY => region.verify(content)?,
                FORK_VERIFIES => child.round()?,
                _ => return child.kill(),
            }
            link.step()?;
        }
    })?;
    let child = parent.receive()?;
    Ok((parent, Pid::from_raw(child)))
}
