// SPDX-License-Identifier: GPL-2.0

//! Domains: pages merge with those of the same domain, and are parted from all others at once.

use std::{fs::OpenOptions, io::Write};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    control_file, domain,
    ksm::{Counters, Scanner},
    pattern,
    peer::Peer,
    region::Region,
};
use nix::{
    errno::Errno,
    unistd::{setgid, setuid, Gid, Pid, Uid},
};

use crate::{
    case::{Case, Options},
    helpers::{exec, holders, join_all, program, step, verify_all, AfterExec},
};

pub const CASES: &[Case] = &[
    Case::new(
        "domains-apart",
        "equal pages of two domains become one page in each, with smart_scan and a step of 100 pages too",
        apart,
    ),
    Case::new(
        "domains-change",
        "a process that leaves a domain shares nothing with it when the write returns",
        change,
    ),
    Case::new(
        "domains-private",
        "a process that makes its domain private merges with its forks alone",
        private,
    ),
    Case::new(
        "domains-inherited",
        "fork and exec inherit the domain",
        inherited,
    ),
    Case::new(
        "domains-permission",
        "who may write what to ksm_domain, and what is refused",
        permission,
    ),
    Case::new(
        "domains-rules",
        "each rule lets those merge that it should, and parts all others when the write returns",
        rules,
    ),
];

const PAGES: usize = 64;

/// `nobody` of Debian.
const NOBODY: u32 = 65534;

/// Two processes in each of the domains, all of which hold `content`.
fn pairs(content: &[u8], domains: &[u32], rounds: usize) -> Result<Vec<Peer>> {
    let peers = holders(2 * domains.len(), content, rounds)?;
    for (peer, number) in peers
        .iter()
        .zip(domains.iter().flat_map(|number| [number; 2]))
    {
        domain::set(peer.pid(), number)?;
    }
    Ok(peers)
}

fn pids(peers: &[Peer]) -> Vec<Pid> {
    peers.iter().map(Peer::pid).collect()
}

/// Fails unless two processes share all of their mergeable memory, which has [`PAGES`] pages.
fn ensure_together(left: Pid, right: Pid) -> Result<()> {
    let common = domain::common_frames(left, right)?;
    ensure!(common == PAGES, "{left} and {right} share {common} frames");
    Ok(())
}

/// A scanner to which the domains of processes count, whatever the whole run sets.
fn start() -> Result<Scanner> {
    let scanner = Scanner::start()?;
    domain::set_rule("marked")?;
    Ok(scanner)
}

fn apart(_: &Options) -> Result<()> {
    let content = pattern::pages(1, PAGES);
    for smart_scan in [0, 1] {
        let scanner = start()?;
        ksm_tests::ksm::write("smart_scan", smart_scan)?;
        ksm_tests::ksm::write("pages_to_scan", 100)?;
        let mut peers = pairs(&content, &[1, 2, 0], 1)?;
        step(format!(
            "three pages of each content are left of six, smart_scan {smart_scan}"
        ));
        scanner.expect(Counters::stable(3 * 64, 3 * 64, 0))?;
        let pids = pids(&peers);
        for pair in pids.chunks(2) {
            ensure_together(pair[0], pair[1])?;
        }
        domain::ensure_apart(&[pids[0], pids[2], pids[4]])?;
        ensure_listed()?;
        verify_all(&mut peers)?;
        join_all(peers)?;
    }
    Ok(())
}

/// debugfs has a line for each of the domains of [`apart`], of which 0 has the scanner's anchor, too.
fn ensure_listed() -> Result<()> {
    let listed = control_file::read_text("/sys/kernel/debug/ksm_rs/domains")?;
    for number in 0..=2 {
        let line =
            format!("{number} processes 2 shared 64 sharing 64 waiting 0 zero 0 metadata 4096");
        ensure!(listed.lines().any(|listed| listed == line), "{listed}");
    }
    Ok(())
}

fn change(_: &Options) -> Result<()> {
    let scanner = start()?;
    let content = pattern::pages(2, PAGES);
    let mut peers = holders(4, &content, 4)?;
    let pids = pids(&peers);
    scanner.expect(Counters::stable(64, 3 * 64, 0))?;

    step("one leaves: it shares nothing from then on");
    domain::set(pids[0], 7)?;
    for other in &pids[1..] {
        domain::ensure_apart(&[pids[0], *other])?;
    }
    verify_all(&mut peers)?;
    scanner.expect(Counters::stable(64, 2 * 64, 64))?;

    step("another one follows: these two merge");
    domain::set(pids[1], 7)?;
    for other in &pids[2..] {
        domain::ensure_apart(&[pids[1], *other])?;
    }
    scanner.expect(Counters::stable(2 * 64, 2 * 64, 0))?;
    ensure_together(pids[0], pids[1])?;
    verify_all(&mut peers)?;

    step("both come back: all four merge");
    domain::set(pids[0], 0)?;
    domain::set(pids[1], 0)?;
    scanner.expect(Counters::stable(64, 3 * 64, 0))?;
    verify_all(&mut peers)?;

    step("the number that a process has already changes nothing");
    domain::set(pids[0], 0)?;
    ensure_together(pids[0], pids[3])?;
    verify_all(&mut peers)?;
    join_all(peers)
}

fn private(_: &Options) -> Result<()> {
    let scanner = start()?;
    let content = pattern::pages(3, PAGES);
    let mut peers = holders(2, &content, 2)?;
    let mut family = Peer::fork(|link| {
        domain::set("self", "private")?;
        let region = Region::mergeable(&content)?;
        let child = Peer::fork(|link| {
            let region = Region::mergeable(&content)?;
            link.step()?;
            link.await_step()?;
            region.verify(&content)
        });
        let mut child = child?;
        child.await_step()?;
        link.send(child.pid().as_raw())?;
        link.await_step()?;
        region.verify(&content)?;
        child.step()?;
        child.join()
    })?;
    let child: i32 = family.receive()?;

    step("its number is none that could be written");
    let number = domain::of(family.pid())?;
    ensure!(number > u64::from(u32::MAX), "the number is {number}");
    ensure!(domain::of(child)? == number, "the fork has another");
    domain::ensure_errno(domain::set(peers[0].pid(), number), Errno::ERANGE)?;

    step("those of the host merge, and those of the family");
    // The fork has the parent's region, too, as KSM pages or as copies of its own.
    scanner.settle()?;
    ensure_together(peers[0].pid(), peers[1].pid())?;
    ensure_together(family.pid(), Pid::from_raw(child))?;
    domain::ensure_apart(&[peers[0].pid(), family.pid()])?;
    verify_all(&mut peers)?;

    step("each new private domain is another one");
    domain::set(peers[0].pid(), "private")?;
    domain::set(peers[1].pid(), "private")?;
    domain::ensure_apart(&[peers[0].pid(), peers[1].pid(), family.pid()])?;
    ensure!(domain::of(peers[0].pid())? != domain::of(peers[1].pid())?);
    scanner.settle()?;
    domain::ensure_apart(&[peers[0].pid(), peers[1].pid(), family.pid()])?;
    verify_all(&mut peers)?;
    family.step()?;
    family.join()?;
    join_all(peers)
}

fn inherited(_: &Options) -> Result<()> {
    Peer::fork(|_| {
        domain::set("self", 4_294_967_295u32)?;
        Peer::fork(|_| {
            ensure!(domain::of("self")? == 4_294_967_295, "lost by fork");
            let mut program = Peer::fork(|link| exec(link))?;
            let domain = program.receive::<AfterExec>()?.domain;
            ensure!(domain == Some(4_294_967_295), "after exec it is {domain:?}");
            program.kill()
        })?
        .join()
    })?
    .join()?;
    ensure!(domain::of("self")? == 0, "nobody has marked this process");
    Ok(())
}

fn permission(_: &Options) -> Result<()> {
    step("other text is refused");
    for (text, errno) in [
        ("", Errno::EINVAL),
        ("-1", Errno::EINVAL),
        ("1 2", Errno::EINVAL),
        ("0x10", Errno::EINVAL),
        ("Private", Errno::EINVAL),
        ("12345678901234567890", Errno::EINVAL),
        ("4294967296", Errno::ERANGE),
    ] {
        domain::ensure_errno(domain::set("self", text), errno)
            .with_context(|| format!("{text:?}"))?;
    }
    ensure!(domain::of("self")? == 0);

    step("a process without privileges may leave, but not join");
    let roots = Pid::this();
    Peer::fork(|_| {
        setgid(Gid::from_raw(NOBODY)).context("setgid")?;
        setuid(Uid::from_raw(NOBODY)).context("setuid")?;
        // So that its files in /proc are its own again.
        nix::sys::prctl::set_dumpable(true)?;
        domain::ensure_errno(domain::set("self", 1), Errno::EPERM)?;
        domain::ensure_errno(domain::set("self", 0), Errno::EPERM)?;
        domain::set("self", "private")?;
        ensure!(domain::of("self")? > u64::from(u32::MAX));
        domain::ensure_errno(domain::set("self", 0), Errno::EPERM)?;
        domain::ensure_errno(domain::set(roots, "private"), Errno::EACCES)
    })?
    .join()?;

    step("a file that somebody else has opened is not written to");
    Peer::fork(|_| {
        let mut file = OpenOptions::new()
            .write(true)
            .open("/proc/self/ksm_domain")?;
        setuid(Uid::from_raw(NOBODY)).context("setuid")?;
        let written = file.write_all(b"1").map_err(anyhow::Error::from);
        domain::ensure_errno(written, Errno::EPERM)
    })?
    .join()
}

fn rules(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    // Before there is anything to merge: pages that were merged apart stay so.
    domain::set_rule("shared")?;
    let content = pattern::pages(4, PAGES);
    // Two that are marked, and two programs that are not.
    let mut peers = pairs(&content, &[5], 1)?;
    peers.push(program(4, PAGES)?);
    peers.push(program(4, PAGES)?);
    let pids = pids(&peers);

    step("shared: all merge");
    scanner.expect(Counters::stable(64, 3 * 64, 0))?;

    step("marked: two of each are left at once");
    domain::set_rule("marked")?;
    for marked in &pids[..2] {
        for unmarked in &pids[2..] {
            domain::ensure_apart(&[*marked, *unmarked])?;
        }
    }
    scanner.expect(Counters::stable(2 * 64, 2 * 64, 0))?;
    ensure_together(pids[0], pids[1])?;
    ensure_together(pids[2], pids[3])?;

    step("private: programs that nobody has marked are alone");
    domain::set_rule("private")?;
    domain::ensure_apart(&[pids[0], pids[2], pids[3]])?;
    ensure_together(pids[0], pids[1])?;
    scanner.expect(Counters::stable(64, 64, 2 * 64))?;
    domain::ensure_apart(&[pids[0], pids[2], pids[3]])?;

    step("marked again: these merge again, and nothing else is touched");
    domain::set_rule("marked")?;
    ensure_together(pids[0], pids[1])?;
    scanner.expect(Counters::stable(2 * 64, 2 * 64, 0))?;

    step("shared again: pages merged before find each other's equals, too");
    domain::set_rule("shared")?;
    let late = holders(1, &content, 1)?;
    scanner.settle()?;
    ensure!(
        domain::common_frames(late[0].pid(), pids[0])?
            + domain::common_frames(late[0].pid(), pids[2])?
            == PAGES
    );
    domain::set_rule("marked")?;
    verify_all(&mut peers)
}
