// SPDX-License-Identifier: GPL-2.0

//! Mappings that change while their pages are merged.

use anyhow::{ensure, Result};
use ksm_tests::{
    cgroup::{leave, Cgroup},
    ksm::{Counters, Scanner},
    pattern,
    procfs::KsmStat,
    region::Region,
    MIB, PAGE_SIZE,
};
use nix::{sys::mman::ProtFlags, unistd::Pid};

use crate::{
    case::{Case, Options},
    helpers::{ensure_merging_pages, expect_sharing, step},
};

pub const CASES: &[Case] = &[
    Case::new(
        "munmap-merged",
        "one of two merged mappings goes away, then the other",
        munmap,
    ),
    Case::new(
        "munmap-part",
        "a hole is torn into a merged mapping",
        munmap_part,
    ),
    Case::new(
        "munmap-orphans",
        "records of pages that went away are collected by the next scan",
        orphans,
    ),
    Case::new(
        "mremap-move",
        "a merged mapping moves and merges again at its new place",
        mremap_move,
    ),
    Case::new(
        "mremap-resize",
        "a merged mapping shrinks and grows",
        mremap_resize,
    ),
    Case::new(
        "mprotect-merged",
        "a merged mapping is made read-only, inaccessible and writable again",
        mprotect,
    ),
    Case::new(
        "dontneed-merged",
        "MADV_DONTNEED on merged pages gives zeros to one mapping alone",
        dontneed,
    ),
    Case::new(
        "free-merged",
        "MADV_FREE on merged pages touches one mapping alone",
        free,
    ),
    Case::new(
        "free-shared",
        "pages given up by the only one who maps them are safe for who shares them later",
        free_then_share,
    ),
];

const PAGES: usize = 64;

/// Two merged mappings with equal contents.
struct Pair {
    scanner: Scanner,
    content: Vec<u8>,
    left: Region,
    right: Region,
}

impl Pair {
    fn merged(seed: u64) -> Result<Self> {
        let scanner = Scanner::start()?;
        let content = pattern::pages(seed, PAGES);
        let left = Region::mergeable(&content)?;
        let right = Region::mergeable(&content)?;
        scanner.expect(MERGED)?;
        Ok(Self {
            scanner,
            content,
            left,
            right,
        })
    }
}

const MERGED: Counters = Counters::stable(64, 64, 0);

fn munmap(_: &Options) -> Result<()> {
    let pair = Pair::merged(1)?;
    drop(pair.left);
    step("the mapping that stays keeps its data");
    pair.right.verify(&pair.content)?;
    expect_sharing(&pair.scanner, 0)?;
    pair.right.verify(&pair.content)?;

    drop(pair.right);
    step("without mappings there is nothing to account for");
    pair.scanner.expect(Counters::ZERO)?;
    ensure_merging_pages(0)
}

fn munmap_part(_: &Options) -> Result<()> {
    let mut pair = Pair::merged(2)?;
    let mut hole = pair.left.split_off(PAGES / 4)?;
    let tail = hole.split_off(PAGES / 2)?;
    drop(hole);
    step("32 of 64 pairs are parted");
    expect_sharing(&pair.scanner, 32)?;
    pair.left.verify(&pair.content[..PAGES / 4 * PAGE_SIZE])?;
    tail.verify(&pair.content[PAGES * 3 / 4 * PAGE_SIZE..])?;
    pair.right.verify(&pair.content)
}

fn orphans(_: &Options) -> Result<()> {
    let pair = Pair::merged(3)?;
    let unique = Region::mergeable(&pattern::pages(4, PAGES))?;
    pair.scanner.expect(Counters::stable(64, 64, 64))?;
    let items = || Ok::<_, anyhow::Error>(KsmStat::read("self")?.rmap_items);
    ensure!(items()? == 192, "{} records for 192 pages", items()?);

    drop(unique);
    pair.scanner.scans(1)?;
    step("a scan after munmap of pages without an equal, their records are gone");
    ensure!(items()? == 128, "{} records for 128 pages", items()?);

    drop((pair.left, pair.right));
    pair.scanner.scans(1)?;
    step("the same for merged pages");
    ensure!(items()? == 0, "{} records for no page", items()?);
    pair.scanner.expect(Counters::ZERO)
}

fn mremap_move(_: &Options) -> Result<()> {
    let mut pair = Pair::merged(5)?;
    for _ in 0..5 {
        pair.left.relocate()?;
        pair.left.verify(&pair.content)?;
        pair.right.verify(&pair.content)?;
        pair.scanner.expect(MERGED)?;
        ensure_merging_pages(2 * PAGES)?;
    }
    pair.left.verify(&pair.content)?;
    pair.right.verify(&pair.content)
}

fn mremap_resize(_: &Options) -> Result<()> {
    let mut pair = Pair::merged(6)?;
    pair.left.resize(PAGES / 2)?;
    let (kept, cut) = pair.content.split_at(PAGES / 2 * PAGE_SIZE);
    pair.left.verify(kept)?;
    step("32 pages are left of one mapping");
    expect_sharing(&pair.scanner, 32)?;
    pair.left.verify(kept)?;

    step("twice as large as before, the new pages are zero");
    pair.left.resize(2 * PAGES)?;
    let mut grown = kept.to_vec();
    grown.resize(2 * PAGES * PAGE_SIZE, 0);
    pair.left.verify(&grown)?;

    step("filled like the other mapping, they merge");
    pair.left.bytes_mut()[kept.len()..][..cut.len()].copy_from_slice(cut);
    grown[kept.len()..][..cut.len()].copy_from_slice(cut);
    expect_sharing(&pair.scanner, 64)?;
    pair.left.verify(&grown)?;
    pair.right.verify(&pair.content)
}

fn mprotect(_: &Options) -> Result<()> {
    let mut pair = Pair::merged(7)?;
    for protection in [ProtFlags::PROT_READ, ProtFlags::PROT_NONE] {
        step(format!("{protection:?} during two scans"));
        let Pair { scanner, left, .. } = &mut pair;
        left.protected(protection, || scanner.scans(2))?;
        pair.left.verify(&pair.content)?;
        pair.right.verify(&pair.content)?;
    }
    pair.scanner.expect(MERGED)?;

    step("writable again, a write is still seen by the writer alone");
    let mut changed = pair.content.clone();
    for index in 0..PAGES {
        pair.left.page_mut(index)[11] ^= 1;
        changed[index * PAGE_SIZE + 11] ^= 1;
    }
    pair.left.verify(&changed)?;
    pair.right.verify(&pair.content)
}

fn dontneed(_: &Options) -> Result<()> {
    let mut pair = Pair::merged(8)?;
    pair.left.discard()?;
    // Reading maps the kernel's zero page, which is none of KSM's business.
    pair.left.verify(&vec![0; PAGES * PAGE_SIZE])?;
    pair.right.verify(&pair.content)?;
    expect_sharing(&pair.scanner, 0)?;

    step("filled again, it merges again");
    pair.left.bytes_mut().copy_from_slice(&pair.content);
    pair.scanner.expect(MERGED)?;
    pair.left.verify(&pair.content)?;
    pair.right.verify(&pair.content)
}

fn free(_: &Options) -> Result<()> {
    let mut pair = Pair::merged(9)?;
    pair.left.discard_lazily()?;
    pair.scanner.settle()?;
    step("each page is as before or zero; the other mapping is as before");
    for (index, expected) in pair.content.chunks_exact(PAGE_SIZE).enumerate() {
        let page = pair.left.page(index);
        let zero = page.iter().all(|&byte| byte == 0);
        ensure!(zero || page == expected, "page {index} is neither");
    }
    pair.right.verify(&pair.content)?;

    step("what is written after that stays");
    pair.left.bytes_mut().copy_from_slice(&pair.content);
    pair.scanner.expect(MERGED)?;
    pair.left.verify(&pair.content)?;
    pair.right.verify(&pair.content)
}

fn free_then_share(_: &Options) -> Result<()> {
    let group = Cgroup::new("freed")?;
    group.add(Pid::this())?;
    let Pair {
        scanner,
        content,
        left,
        mut right,
    } = Pair::merged(10)?;
    step("one leaves; the other, alone now, gives the pages up lazily");
    drop(left);
    right.discard_lazily()?;
    step("a third comes to share them");
    let third = Region::mergeable(&content)?;
    scanner.expect(MERGED)?;
    step("reclaim takes what it can");
    for _ in 0..10 {
        group.reclaim(16 * MIB);
    }
    third.verify(&content)?;
    leave(Pid::this())
}
