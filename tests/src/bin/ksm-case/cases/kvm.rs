// SPDX-License-Identifier: GPL-2.0

//! Memory of guests, which KVM maps a second time, by page tables of its own.

use std::collections::BTreeSet;

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    corpus::Corpus,
    ksm::{self, Counters, Run, Scanner},
    kvm::{Beside, Guest, GuestMemfd, Job, Writes},
    pagemap, pattern,
    peer::Peer,
    procfs,
    region::{Region, HUGE_PAGES},
    userfault::{Fault, Mode, UserFault},
    PAGE_SIZE,
};

use serde::{Deserialize, Serialize};

use crate::{
    case::{Case, Options},
    helpers::step,
};

/// With less than 512 MiB the kernel turns huge pages off.
const ENOUGH: &str = "768M";

pub const CASES: &[Case] = &[
    Case::new(
        "kvm-write",
        "guests share pages, and a guest's write parts its own copy only",
        write,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "kvm-orders",
        "guests that share pages end in every order, some of them killed",
        orders,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "kvm-dirty-log",
        "a copy that follows KVM's log of writes misses none while pages merge",
        dirty_log,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "kvm-memslots",
        "memory slots are moved, taken and given back while their pages merge",
        memslots,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "kvm-userfault",
        "a guest's pages arrive one by one through userfaultfd, and merge",
        userfault,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "kvm-userfault-wp",
        "userfaultfd sees every page of a guest that is written first after merging",
        userfault_wp,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "kvm-huge",
        "huge pages that a guest uses are split and merged under it",
        huge,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "kvm-guest-memfd",
        "memory of guest_memfd is left alone, with or without advice",
        guest_memfd,
    )
    .on("x86")
    .memory(ENOUGH),
];

/// Pages of this machine's files, as its guests' page caches would have them.
fn files(pages: usize) -> Result<Vec<u8>> {
    let mut content = vec![0; pages * PAGE_SIZE];
    Corpus::of_pages(pages)?.read_into(&mut content)?;
    Ok(content)
}

/// A guest whose bank is advised memory.
fn guest(content: &[u8]) -> Result<Guest> {
    Guest::new(Region::mergeable(content)?, content)
}

/// For which pages of their banks two guests have the same frame.
fn shared_pages(left: &Guest, right: &Guest) -> Result<BTreeSet<usize>> {
    let (left, right) = (
        pagemap::frames(left.bank())?,
        pagemap::frames(right.bank())?,
    );
    let equal = |(index, (l, r))| (l == r).then_some(index);
    Ok(left
        .into_iter()
        .zip(right)
        .enumerate()
        .filter_map(equal)
        .collect())
}

/// Pages in which two guests' banks hold the same.
fn equal_pages(left: &Guest, right: &Guest) -> BTreeSet<usize> {
    let pages = |guest: &Guest| -> Vec<Vec<u8>> {
        let bank = guest.model().bank();
        bank.chunks(PAGE_SIZE).map(<[u8]>::to_vec).collect()
    };
    let equal = |(index, (l, r))| (l == r).then_some(index);
    let (left, right) = (pages(left), pages(right));
    left.into_iter()
        .zip(right)
        .enumerate()
        .filter_map(equal)
        .collect()
}

/// Fails unless two guests share all pages that are equal.
fn ensure_all_shared(left: &Guest, right: &Guest) -> Result<()> {
    let (equal, shared) = (equal_pages(left, right), shared_pages(left, right)?);
    step(format!(
        "{} pages are equal, {} shared",
        equal.len(),
        shared.len()
    ));
    ensure!(equal == shared, "not shared: {:?}", &equal - &shared);
    Ok(())
}

fn write(_: &Options) -> Result<()> {
    const COMMON: usize = 512;
    const OWN: usize = 64;
    let scanner = Scanner::start()?;
    let mut guests = Vec::new();
    for seed in 0..4 {
        let content = [files(COMMON)?, pattern::pages(seed, OWN)].concat();
        guests.push(guest(&content)?);
    }
    for guest in &mut guests {
        guest.verify()?;
    }
    scanner.scans(4)?;
    for other in &guests[1..] {
        ensure_all_shared(&guests[0], other)?;
    }
    for round in 0..5 {
        let written = 100 * round..100 * round + 20;
        guests[0].write(Writes {
            pages: written.clone(),
            count: 500,
            seed: round as u64,
        })?;
        for guest in &mut guests {
            guest.verify_from_both_sides()?;
        }
        ensure_all_shared(&guests[0], &guests[1])?;
        ensure_all_shared(&guests[1], &guests[2])?;
        let parted = &equal_pages(&guests[1], &guests[2]) - &equal_pages(&guests[0], &guests[1]);
        step(format!("{} pages are parted by guest 0", parted.len()));
        ensure!(written.collect::<BTreeSet<_>>().is_subset(&parted));
    }
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    guests
        .iter_mut()
        .try_for_each(Guest::verify_from_both_sides)
}

/// How a guest ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Orderly,
    Killed,
}

fn orders(_: &Options) -> Result<()> {
    /// All orders of three.
    const ORDERS: [[usize; 3]; 6] = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let scanner = Scanner::start()?;
    let content = files(128)?;
    for end in [End::Orderly, End::Killed] {
        for order in ORDERS {
            step(format!("{order:?}, {end:?}"));
            end_in_order(&scanner, &content, order, end)?;
        }
    }
    scanner.expect_after_exit(Counters::ZERO)
}

fn end_in_order(scanner: &Scanner, content: &[u8], order: [usize; 3], end: End) -> Result<()> {
    let pages = (content.len() / PAGE_SIZE) as u64;
    let new = || process(content).map(Some);
    let mut guests = [new()?, new()?, new()?];
    scanner.scans(3)?;
    let sharing = ksm::counters()?.sharing;
    ensure!(sharing >= 2 * pages, "only {sharing} pages are saved");
    for index in order {
        let mut guest = guests[index].take().context("an order names one twice")?;
        match end {
            End::Orderly => {
                guest.send(Order::End)?;
                guest.join()?;
            }
            End::Killed => guest.kill()?,
        }
        for guest in guests.iter_mut().flatten() {
            guest.send(Order::Verify)?;
            guest.await_step()?;
        }
    }
    Ok(())
}

/// What a process with a guest is told.
#[derive(Serialize, Deserialize)]
enum Order {
    Verify,
    End,
}

/// A process with a guest.
fn process(content: &[u8]) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        let mut guest = guest(content)?;
        guest.verify()?;
        link.step()?;
        while let Order::Verify = link.receive()? {
            guest.verify_from_both_sides()?;
            link.step()?;
        }
        Ok(())
    })?;
    peer.await_step()?;
    Ok(peer)
}

/// A copy of a guest's bank, as live migration makes it.
struct Copy(Vec<u64>);

impl Copy {
    fn new(pages: usize) -> Self {
        Self(vec![0; pages * PAGE_SIZE / 8])
    }

    /// Copies pages while the guest may be writing to them.
    fn take(&mut self, beside: &Beside, pages: impl IntoIterator<Item = usize>) {
        for page in pages {
            let words = beside.page(page);
            self.0[page * words.len()..][..words.len()].copy_from_slice(&words);
        }
    }

    /// Fails unless the copy is what the guest holds.
    fn verify(&self, guest: &Guest) -> Result<()> {
        let bytes = self.0.iter().flat_map(|word| word.to_ne_bytes());
        let wrong = bytes.zip(guest.model().bank()).filter(|(l, r)| l != *r);
        let wrong = wrong.count();
        ensure!(wrong == 0, "DATA LOST: {wrong} bytes of the copy are wrong");
        Ok(())
    }
}

fn dirty_log(_: &Options) -> Result<()> {
    const PAGES: usize = 512;
    let scanner = Scanner::start()?;
    let content = files(PAGES)?;
    // Both are told the same, so their pages are equal again and again.
    let mut guests = [guest(&content)?, guest(&content)?];
    let mut copies = [Copy::new(PAGES), Copy::new(PAGES)];
    for (guest, copy) in guests.iter_mut().zip(&mut copies) {
        guest.log_writes(true)?;
        guest.run_beside(Job::VerifyHead, |beside| {
            copy.take(beside, 0..PAGES);
            Ok(())
        })?;
    }
    for round in 0..3 {
        scanner.scans(3)?;
        let shared = shared_pages(&guests[0], &guests[1])?.len();
        ensure!(shared > PAGES / 2, "only {shared} pages are shared");
        for (guest, copy) in guests.iter_mut().zip(&mut copies) {
            let copied = follow(guest, copy, round)?;
            copy.verify(guest)?;
            step(format!(
                "round {round}: {shared} pages shared, {copied} copied again"
            ));
        }
    }
    guests
        .iter_mut()
        .try_for_each(Guest::verify_from_both_sides)?;
    for guest in &mut guests {
        guest.log_writes(false)?;
        guest.verify_from_both_sides()?;
    }
    Ok(())
}

/// Lets the guest write, copies what it has written to until it is done, and then the rest.
/// Gives how many pages were copied.
fn follow(guest: &mut Guest, copy: &mut Copy, round: u64) -> Result<usize> {
    let writes = Writes {
        pages: 0..guest.pages(),
        count: 1500,
        seed: round,
    };
    guest.run_beside(Job::Write(writes), |beside| {
        let mut copied = 0;
        loop {
            // In this order: what is written last is still in the log when it is read last.
            let is_last = !beside.is_busy();
            let pages = beside.written_pages()?;
            copied += pages.len();
            copy.take(beside, pages);
            if is_last {
                return Ok(copied);
            }
        }
    })
}

fn memslots(_: &Options) -> Result<()> {
    const PAGES: usize = 512;
    const PLACES: [u64; 3] = [256 << 20, 512 << 20, 768 << 20];
    let scanner = Scanner::start()?;
    let content = files(PAGES)?;
    let mut guests = [guest(&content)?, guest(&content)?];
    for round in 0..6 {
        let guest = &mut guests[round % 2];
        guest.run_beside(Job::VerifyHead, |beside| {
            for place in PLACES {
                beside.place_bank(place)?;
                beside.take_bank()?;
                scanner.scans(1)?;
                beside.place_bank(place)?;
            }
            beside.place_bank(PLACES[round % PLACES.len()])
        })?;
        let shared = shared_pages(&guests[0], &guests[1])?.len();
        step(format!("round {round}: {shared} pages shared"));
        ensure!(shared > PAGES / 2, "only {shared} pages are shared");
        for guest in &mut guests {
            guest.verify_from_both_sides()?;
            guest.write(Writes {
                pages: 0..PAGES / 8,
                count: 1000,
                seed: round as u64,
            })?;
            guest.verify_from_both_sides()?;
        }
    }
    Ok(())
}

/// userfaultfd in charge of a region, which this kernel must be able to do.
fn in_charge(region: &Region, mode: Mode) -> Result<UserFault> {
    let uffd = UserFault::new()?.context("this kernel has no userfaultfd")?;
    ensure!(
        uffd.register(region, mode)?,
        "userfaultfd knows no {mode:?}"
    );
    Ok(uffd)
}

/// Resolves all faults of a guest until it is done; gives userfaultfd back, and their number.
///
/// If something goes wrong, userfaultfd goes, so that the guest does not wait for ever.
fn resolve(
    beside: &Beside,
    uffd: UserFault,
    mut resolve: impl FnMut(&UserFault, Fault) -> Result<()>,
) -> Result<(UserFault, usize)> {
    let mut faults = 0;
    while beside.is_busy() {
        if let Some(fault) = uffd.fault()? {
            faults += 1;
            resolve(&uffd, fault)?;
        }
    }
    Ok((uffd, faults))
}

fn userfault(_: &Options) -> Result<()> {
    const PAGES: usize = 512;
    let scanner = Scanner::start()?;
    let content = files(PAGES)?;
    let other = guest(&content)?;
    let bank = Region::new(PAGES)?;
    bank.advise_mergeable()?;
    let mut uffd = in_charge(&bank, Mode::Missing)?;
    let mut guest = Guest::new(bank, &content)?;
    for half in [0..PAGES / 2, PAGES / 2..PAGES] {
        let faults;
        (uffd, faults) = guest.run_beside(Job::Verify(half.clone()), |beside| {
            let first = beside.bank_address();
            resolve(beside, uffd, |uffd, fault| {
                ensure!(fault.mode == Mode::Missing, "{fault:?}");
                let content = &content[fault.page - first..][..PAGE_SIZE];
                uffd.provide(fault.page, content)
            })
        })?;
        step(format!("{faults} pages were provided"));
        ensure!(faults == half.len(), "{half:?} took {faults} faults");
        scanner.scans(3)?;
    }
    guest.verify_from_both_sides()?;
    ensure_all_shared(&guest, &other)?;
    guest.write(Writes {
        pages: 0..PAGES,
        count: 200,
        seed: 1,
    })?;
    guest.verify_from_both_sides()
}

fn userfault_wp(_: &Options) -> Result<()> {
    const PAGES: usize = 256;
    let scanner = Scanner::start()?;
    let content = files(PAGES)?;
    let other = guest(&content)?;
    let bank = Region::mergeable(&content)?;
    let uffd = in_charge(&bank, Mode::WriteProtect)?;
    uffd.protect(&bank, true)?;
    let mut guest = Guest::new(bank, &content)?;
    scanner.scans(4)?;
    ensure_all_shared(&guest, &other)?;
    let writes = Writes {
        pages: 0..PAGES,
        count: 300,
        seed: 7,
    };
    let mut seen = BTreeSet::new();
    guest.run_beside(Job::Write(writes), |beside| {
        let first = beside.bank_address();
        resolve(beside, uffd, |uffd, fault| {
            ensure!(fault.mode == Mode::WriteProtect, "{fault:?}");
            seen.insert((fault.page - first) / PAGE_SIZE);
            uffd.allow_writes(fault.page)
        })
    })?;
    guest.verify_from_both_sides()?;
    let equal = equal_pages(&guest, &other);
    let written: BTreeSet<_> = (0..PAGES).filter(|page| !equal.contains(page)).collect();
    step(format!(
        "{} pages written, {} seen",
        written.len(),
        seen.len()
    ));
    ensure!(seen == written, "unseen: {:?}", &written - &seen);
    ensure_all_shared(&guest, &other)
}

fn huge(_: &Options) -> Result<()> {
    const PAGES: usize = 2 * HUGE_PAGES;
    let scanner = Scanner::prepare()?;
    let content = files(PAGES)?;
    let mut guests = Vec::new();
    for _ in 0..2 {
        let bank = Region::huge(&content)?;
        let kib = procfs::smaps_kib(&bank, "AnonHugePages")?;
        ensure!(
            kib == (content.len() / 1024) as i64,
            "only {kib} kB are huge"
        );
        bank.advise_mergeable()?;
        guests.push(Guest::new(bank, &content)?);
    }
    for guest in &mut guests {
        guest.verify()?;
    }
    let splits = procfs::vmstat("thp_split_page")?;
    ksm::set_run(Run::Merge)?;
    for guest in &mut guests {
        guest.run_beside(Job::Verify(0..PAGES), |_| scanner.scans(2))?;
    }
    scanner.scans(2)?;
    let splits = procfs::vmstat("thp_split_page")? - splits;
    step(format!("{splits} huge pages were split"));
    ensure!(splits >= 4, "merged without a split");
    ensure_all_shared(&guests[0], &guests[1])?;
    guests[1].write(Writes {
        pages: 0..PAGES,
        count: 300,
        seed: 1,
    })?;
    guests
        .iter_mut()
        .try_for_each(Guest::verify_from_both_sides)?;
    ensure_all_shared(&guests[0], &guests[1])
}

fn guest_memfd(_: &Options) -> Result<()> {
    const PAGES: usize = 256;
    let scanner = Scanner::start()?;
    let content = files(PAGES)?;
    let mut guests = Vec::new();
    for _ in 0..2 {
        let bank = |vm: &_| {
            let bank = GuestMemfd::with_content(vm, &content)?;
            bank.advise_mergeable()?;
            Ok(bank)
        };
        guests.push(Guest::with_bank_of(&content, bank)?);
    }
    let mut plain = [guest(&content)?, guest(&content)?];
    scanner.scans(4)?;
    step("only pages of the two guests with ordinary memory, and heads, are merged");
    ensure_all_shared(&plain[0], &plain[1])?;
    let merged = procfs::merging_pages("self")?;
    let advised: usize = plain
        .iter()
        .map(|guest| guest.memory().concat().len())
        .sum();
    let heads: usize = guests.iter().map(|guest| guest.memory()[0].len()).sum();
    let most = (advised + heads) / PAGE_SIZE;
    ensure!(
        merged <= most as i64,
        "{merged} pages are merged, of {most} at most"
    );
    for guest in &mut guests {
        guest.verify_from_both_sides()?;
        guest.write(Writes {
            pages: 0..PAGES,
            count: 500,
            seed: 3,
        })?;
        guest.verify_from_both_sides()?;
    }
    plain.iter_mut().try_for_each(Guest::verify_from_both_sides)
}
