// SPDX-License-Identifier: GPL-2.0

//! What else programs and devices do to memory that is merged.

use std::{fs::File, os::unix::fs::FileExt, thread};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    control_file,
    ksm::{self, Counters, Run, Scanner},
    pagemap, pattern, procfs,
    region::Region,
    swap::{self, Zram},
    uring::PinningRing,
    userfault::{Mode, UserFault},
    wait, MIB, PAGE_SIZE,
};
use nix::errno::Errno;

use crate::{
    case::{Case, Options, Skip},
    helpers::{ensure_shared, expect_sharing, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "mlock-merged",
        "locked memory merges, stays in memory, and breaks on write like any other",
        mlock,
    ),
    Case::new(
        "uffd-missing",
        "pages that a program provides through userfaultfd merge, go, and are provided again",
        uffd_missing,
    ),
    Case::new(
        "uffd-wp",
        "userfaultfd's protection of merged pages outlives their unmerging",
        uffd_wp,
    )
    .on("x86"),
    Case::new(
        "uffd-access",
        "userfaultfd tells of any access to merged pages, and they merge and part without one",
        uffd_access,
    )
    .on("x86"),
    Case::new(
        "uffd-access-zeros",
        "zero pages that userfaultfd keeps run=2 from part when it lets go",
        uffd_access_zeros,
    )
    .on("x86"),
    Case::new(
        "soft-dirty",
        "a write to a merged page leaves its soft-dirty mark",
        soft_dirty,
    )
    .on("x86"),
    Case::new(
        "direct-io",
        "O_DIRECT writes merged pages to a device, and reads into them, beside the scanner",
        direct_io,
    ),
    Case::new(
        "uring-pins",
        "pages that io_uring pins are never merged, and merged ones part before they are pinned",
        uring_pins,
    ),
];

const PAGES: usize = 32;

fn lock(region: &Region, on: bool) -> Result<()> {
    let (address, length) = (region.address() as *const _, region.len());
    // SAFETY: Locking changes no contents.
    let result = unsafe {
        if on {
            libc::mlock(address, length)
        } else {
            libc::munlock(address, length)
        }
    };
    Errno::result(result).map(drop).context("mlock")
}

fn mlock(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(1, PAGES);
    let before = procfs::meminfo_kib("Mlocked")?;
    let mut left = Region::mergeable(&content)?;
    lock(&left, true)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(32, 32, 0))?;
    ensure_shared(&left, &right)?;

    step("locked after the merge, too");
    lock(&right, true)?;
    left.page_mut(3)[0] ^= 1;
    expect_sharing(&scanner, 31)?;
    right.verify(&content)?;
    left.page_mut(3)[0] ^= 1;
    scanner.expect(Counters::stable(32, 32, 0))?;
    step("unmerged, all of both are locked");
    ksm::set_run(Run::Unmerge)?;
    let both = 2 * (content.len() / 1024) as i64;
    expect_locked(|locked| locked >= before + both)?;
    left.verify(&content)?;
    right.verify(&content)?;
    step("unlocked and unmapped: nothing stays locked");
    lock(&left, false)?;
    drop((left, right));
    expect_locked(|locked| locked <= before)
}

/// Waits for the kernel's account of locked memory, in KiB, to be what `is_right` says.
fn expect_locked(is_right: impl Fn(i64) -> bool) -> Result<()> {
    wait::until("the kernel's account of locked memory", || {
        // This flushes what waits on some CPU for being counted.
        control_file::write("/proc/sys/vm/compact_memory", 1)?;
        Ok(is_right(procfs::meminfo_kib("Mlocked")?).then_some(()))
    })
}

fn userfault() -> Result<UserFault> {
    let none = Skip("this kernel has no userfaultfd".into());
    Ok(UserFault::new()?.ok_or(none)?)
}

fn uffd_missing(_: &Options) -> Result<()> {
    let uffd = userfault()?;
    let scanner = Scanner::start()?;
    let content = pattern::pages(2, PAGES);
    let plain = Region::mergeable(&content)?;
    let mut provided = Region::new(PAGES)?;
    uffd.register(&provided, Mode::Missing)?;
    provided.advise_mergeable()?;
    step("nothing is there, and the scanner does not ask for it");
    scanner.expect(Counters::stable(0, 0, 32))?;
    for _ in 0..3 {
        uffd.fill(&mut provided, &content)?;
        step("provided, the pages merge");
        scanner.expect(Counters::stable(32, 32, 0))?;
        ensure_shared(&provided, &plain)?;
        provided.verify(&content)?;
        step("discarded, they are missing again");
        provided.discard()?;
        expect_sharing(&scanner, 0)?;
    }
    uffd.fill(&mut provided, &content)?;
    scanner.settle()?;
    ksm::set_run(Run::Unmerge)?;
    provided.verify(&content)?;
    plain.verify(&content)
}

fn uffd_wp(_: &Options) -> Result<()> {
    let uffd = userfault()?;
    let scanner = Scanner::start()?;
    let content = pattern::pages(3, PAGES);
    let plain = Region::mergeable(&content)?;
    let protected = Region::mergeable(&content)?;
    if !uffd.register(&protected, Mode::WriteProtect)? {
        return Err(Skip("userfaultfd has no write protection here".into()).into());
    }
    scanner.expect(Counters::stable(32, 32, 0))?;
    uffd.protect(&protected, true)?;
    ensure_protected(&protected, true)?;
    step("merged pages are protected; unmerged, they still are");
    protected.advise_unmergeable()?;
    ensure_protected(&protected, true)?;
    protected.verify(&content)?;

    step("pages that are protected before they merge lose no content");
    protected.advise_mergeable()?;
    scanner.settle()?;
    let kept = pagemap::write_protected(&protected)?;
    step(format!(
        "{} of {PAGES} keep their mark",
        kept.iter().filter(|on| **on).count()
    ));
    protected.verify(&content)?;
    ksm::set_run(Run::Unmerge)?;
    uffd.protect(&protected, false)?;
    ensure_protected(&protected, false)?;
    protected.verify(&content)?;
    plain.verify(&content)
}

fn uffd_access(_: &Options) -> Result<()> {
    let none = Skip("userfaultfd cannot tell of any access here".into());
    let uffd = UserFault::for_access()?.ok_or(none)?;
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, PAGES);
    let plain = Region::mergeable(&content)?;
    let mut guarded = Region::mergeable(&content)?;
    ensure!(uffd.register(&guarded, Mode::Access)?, "not registered");
    uffd.keep_out(&guarded, true)?;

    step("pages merge though their owner is kept out");
    scanner.expect(Counters::stable(32, 32, 0))?;
    step("a read is told, and then a write");
    ensure_told(&uffd, guarded.page_address(3), || {
        guarded.page(3)[0] == content[3 * PAGE_SIZE]
    })?;
    let page = guarded.page_address(4);
    ensure_told(&uffd, page, || {
        guarded.page_mut(4)[0] ^= 1;
        true
    })?;
    guarded.page_mut(4)[0] ^= 1;

    step("pages that their owner is kept out of cannot part, and keep the advice");
    ensure!(guarded.try_advise_unmergeable() == Err(Errno::EBUSY));
    scanner.expect(Counters::stable(32, 32, 0))?;
    step("run=2 leaves what nobody can have a copy of; they are let in again, and it parts");
    ensure!(uffd.register(&plain, Mode::Access)?, "not registered");
    uffd.keep_out(&plain, true)?;
    ksm::set_run(Run::Unmerge)?;
    ensure!(
        are_merged(&guarded)?,
        "a process that is kept out got a copy"
    );
    uffd.keep_out(&plain, false)?;
    uffd.keep_out(&guarded, false)?;
    wait::until("pages of their own", || {
        Ok((!are_merged(&guarded)? && !are_merged(&plain)?).then_some(()))
    })?;
    guarded.verify(&content)?;

    step("they merge again, and part on demand");
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(32, 32, 0))?;
    guarded.verify(&content)?;
    guarded.advise_unmergeable()?;
    expect_sharing(&scanner, 0)?;
    guarded.verify(&content)?;
    plain.verify(&content)
}

fn uffd_access_zeros(_: &Options) -> Result<()> {
    let none = Skip("userfaultfd cannot tell of any access here".into());
    let uffd = UserFault::for_access()?.ok_or(none)?;
    let scanner = Scanner::start()?;
    ksm::write("use_zero_pages", 1)?;
    let zeros = vec![0; PAGES * PAGE_SIZE];
    let guarded = Region::mergeable(&zeros)?;
    ensure!(uffd.register(&guarded, Mode::Access)?, "not registered");
    uffd.keep_out(&guarded, true)?;
    scanner.settle()?;
    let zero_pages = || ksm::read::<usize>("ksm_zero_pages");
    ensure!(zero_pages()? == PAGES, "not zero pages");

    step("run=2 leaves them, as nobody can have a copy; they part when their owner is let in");
    ksm::set_run(Run::Unmerge)?;
    ensure!(
        zero_pages()? == PAGES,
        "a process that is kept out got a copy"
    );
    uffd.keep_out(&guarded, false)?;
    wait::until("pages of their own", || {
        Ok((zero_pages()? == 0).then_some(()))
    })?;
    guarded.verify(&zeros)
}

/// Whether any page of `region` is a KSM page.
fn are_merged(region: &Region) -> Result<bool> {
    for frame in pagemap::frames(region)? {
        if pagemap::is_ksm(frame)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes sure that `access` to `page` waits until it is allowed, and gives what it should.
fn ensure_told(uffd: &UserFault, page: usize, access: impl FnOnce() -> bool + Send) -> Result<()> {
    thread::scope(|scope| {
        let access = scope.spawn(access);
        let fault = wait::until("an access that is told of", || match uffd.fault()? {
            None => {
                ensure!(!access.is_finished(), "nobody was told of an access");
                Ok(None)
            }
            some => Ok(some),
        })?;
        uffd.allow_access(page)?;
        ensure!(
            fault.page == page && fault.mode == Mode::Access,
            "told of {fault:?}"
        );
        ensure!(
            access.join().is_ok_and(|is_right| is_right),
            "not the content"
        );
        Ok(())
    })
}

fn ensure_protected(region: &Region, expected: bool) -> Result<()> {
    let marks = pagemap::write_protected(region)?;
    ensure!(
        marks.iter().all(|on| *on == expected),
        "the marks are {marks:?}, not all {expected}"
    );
    Ok(())
}

fn soft_dirty(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(4, PAGES);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    pagemap::clear_soft_dirty()?;
    if pagemap::soft_dirty(&left)?.contains(&true) {
        return Err(Skip("this kernel keeps no soft-dirty marks".into()).into());
    }
    left.page_mut(1)[0] ^= 1;
    left.page_mut(1)[0] ^= 1;
    ensure!(pagemap::soft_dirty(&left)?[1], "no mark even without KSM");
    scanner.expect(Counters::stable(32, 32, 0))?;
    let mark = pagemap::soft_dirty(&left)?[1];
    step(format!(
        "a page written to before the merge keeps its mark: {mark}"
    ));

    step("merging is no write");
    ksm::set_run(Run::Stop)?;
    let third = Region::mergeable(&content)?;
    pagemap::clear_soft_dirty()?;
    ksm::set_run(Run::Merge)?;
    scanner.expect(Counters::stable(32, 64, 0))?;
    for region in [&right, &third] {
        let dirty = pagemap::soft_dirty(region)?;
        ensure!(!dirty.contains(&true), "marked without a write: {dirty:?}");
    }
    step("nor is becoming the zero page");
    ksm::set_run(Run::Stop)?;
    ksm::write("use_zero_pages", 1)?;
    let zeros = Region::mergeable(&vec![0; PAGES * PAGE_SIZE])?;
    pagemap::clear_soft_dirty()?;
    ksm::set_run(Run::Merge)?;
    scanner.settle()?;
    let count: usize = ksm::read("ksm_zero_pages")?;
    ensure!(count == PAGES, "{count} zero pages");
    let dirty = pagemap::soft_dirty(&zeros)?;
    ensure!(!dirty.contains(&true), "marked without a write: {dirty:?}");
    step("a write to a merged page is one");
    left.page_mut(5)[0] ^= 1;
    let dirty = pagemap::soft_dirty(&left)?;
    for (index, dirty) in dirty.into_iter().enumerate() {
        ensure!(dirty == (index == 5), "the mark of page {index} is {dirty}");
    }
    ensure!(
        !pagemap::soft_dirty(&right)?[5],
        "the other's page is marked"
    );
    right.verify(&content)
}

fn device() -> Result<(Zram, File)> {
    if !swap::is_available() {
        return Err(Skip("this kernel has no zram".into()).into());
    }
    let zram = Zram::new(16 * MIB)?;
    let device = zram.open_direct()?;
    Ok((zram, device))
}

fn direct_io(options: &Options) -> Result<()> {
    let (_zram, device) = device()?;
    let scanner = Scanner::start()?;
    let content = pattern::pages(5, PAGES);
    let new_content = pattern::pages(6, PAGES);
    let mut left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    let source = Region::mergeable(&new_content)?;
    scanner.expect(Counters::stable(32, 32, 32))?;
    step("merged pages to the device");
    device.write_all_at(left.bytes(), 0).context("write")?;
    device
        .write_all_at(source.bytes(), MIB as u64)
        .context("write")?;
    step("and the device into merged pages");
    device
        .read_exact_at(left.bytes_mut(), MIB as u64)
        .context("read")?;
    left.verify(&new_content)?;
    right.verify(&content)?;
    expect_sharing(&scanner, 32)?;
    device.read_exact_at(left.bytes_mut(), 0).context("read")?;
    left.verify(&content)?;
    source.verify(&new_content)?;

    let end = std::time::Instant::now() + std::time::Duration::from_secs(options.seconds / 5);
    let mut rounds = 0usize;
    while std::time::Instant::now() < end {
        let (at, expected) = match rounds % 2 {
            0 => (MIB as u64, &new_content),
            _ => (0, &content),
        };
        device.read_exact_at(left.bytes_mut(), at).context("read")?;
        left.verify(expected)?;
        device.write_all_at(left.bytes(), at).context("write")?;
        thread::sleep(std::time::Duration::from_millis(rounds as u64 % 20));
        left.verify(expected)?;
        right.verify(&content)?;
        source.verify(&new_content)?;
        rounds += 1;
    }
    step(format!("{rounds} times there and back beside the scanner"));
    ensure!(rounds > 0, "no time for a single round");
    Ok(())
}

fn uring_pins(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = pattern::pages(7, PAGES);
    let mut pinned = Region::mergeable(&content)?;
    let none = || Skip("this kernel has no io_uring".into());
    let ring = PinningRing::new(&pinned)?.ok_or_else(none)?;
    let frames = pagemap::frames(&pinned)?;
    let free = Region::mergeable(&content)?;
    step("pinned pages stay in their frames, alone");
    scanner.scans(8)?;
    ensure!(
        pagemap::frames(&pinned)? == frames,
        "a pinned page has moved"
    );
    for frame in &frames {
        ensure!(!pagemap::is_ksm(*frame)?, "a pinned page is merged");
    }
    pinned.page_mut(0)[0] ^= 1;
    ensure!(
        pagemap::frames(&pinned)? == frames,
        "a write has moved a pinned page"
    );
    pinned.page_mut(0)[0] ^= 1;
    step("equal pages beside it lose nothing, whether they find each other or not");
    let third = Region::mergeable(&content)?;
    scanner.scans(8)?;
    free.verify(&content)?;
    third.verify(&content)?;
    ensure!(
        pagemap::frames(&pinned)? == frames,
        "a pinned page has moved"
    );

    step("released, it merges");
    ring.release()?;
    scanner.expect(Counters::stable(32, 64, 0))?;
    step("merged, it is pinned: in frames of its own from then on");
    let ring = PinningRing::new(&pinned)?.ok_or_else(none)?;
    let frames = pagemap::frames(&pinned)?;
    for frame in &frames {
        ensure!(!pagemap::is_ksm(*frame)?, "a pinned page is KSM's");
    }
    scanner.scans(8)?;
    ksm::set_run(Run::Unmerge)?;
    ensure!(
        pagemap::frames(&pinned)? == frames,
        "a pinned page has moved"
    );
    for region in [&pinned, &free, &third] {
        region.verify(&content)?;
    }
    ring.release()?;
    Ok(())
}
