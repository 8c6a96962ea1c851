// SPDX-License-Identifier: GPL-2.0

//! Pages that were merged, and come back from swap as parts of a large folio.
//!
//! Swap-in reads up to a large folio at once if its slots lie as the addresses do. The folio is
//! mapped by the process that asked first, and names its `anon_vma`. Others that shared the KSM
//! pages find it in the swap cache, and must get a copy of the one page that is theirs.

use std::{collections::BTreeMap, ops::Range, thread, time::Duration};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    cgroup::Cgroup,
    control_file,
    ksm::{self, Counters, Run, Scanner},
    module, pagemap, pattern,
    peer::Peer,
    procfs,
    region::{Region, HUGE_PAGES},
    swap::{self, Swap},
    wait, MIB,
};
use serde::{Deserialize, Serialize};

use crate::{
    case::{Case, Options, Skip},
    helpers::step,
};

/// With less than 512 MiB the kernel turns huge pages off.
const ENOUGH: &str = "768M";

pub const CASES: &[Case] = &[
    Case::new(
        "swap-large",
        "KSM pages come back from swap in large folios, and each process has what it had",
        both_live,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "swap-large-first-ends",
        "the process that a large folio from swap is mapped by ends, and another has its pages swapped again",
        first_ends,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "swap-large-twins",
        "a process that has each page twice reads them from swap in large folios",
        twins,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "swap-large-off",
        "swapoff gives a process its pages of a large folio that is another's",
        swap_off,
    )
    .on("x86")
    .memory(ENOUGH),
    Case::new(
        "swap-large-rmmod",
        "KSM pages that come back in large folios when the module has gone",
        without_module,
    )
    .on("x86")
    .memory(ENOUGH)
    .unloaded(),
];

const SEED: u64 = 19;
const PAGES: usize = 1024;

/// Pages of a folio of 64 KiB.
const FOLIO_PAGES: usize = 16;
const FOLIOS: usize = PAGES / FOLIO_PAGES;

const RCU_PATIENCE: Duration = Duration::from_secs(1);

const HUGE_64K: &str = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB";

/// Folios of 64 KiB are to be used wherever they can; ended when dropped.
struct LargeFolios(());

impl LargeFolios {
    fn allow() -> Result<Self> {
        control_file::write(format!("{HUGE_64K}/enabled"), "always")?;
        Ok(Self(()))
    }

    /// How many were read from swap.
    fn swapped_in(&self) -> Result<usize> {
        control_file::read(format!("{HUGE_64K}/stats/swpin"))
    }
}

impl Drop for LargeFolios {
    fn drop(&mut self) {
        // The VM ends soon in any case.
        let _ = control_file::write(format!("{HUGE_64K}/enabled"), "never");
    }
}

/// What a process is told to do with its memory.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Move it so that its first page has this number, modulo the pages of a huge page, and let it
    /// have large folios.
    Place(usize),
    /// Verify these pages.
    Verify(Range<usize>),
    /// Change every page, and verify them all.
    Write,
    End,
}

/// The content of a process's memory, which has the same pages `copies` times.
fn content(copies: usize) -> Vec<u8> {
    pattern::pages(SEED, PAGES).repeat(copies)
}

/// A process of `group` that has its content in advised memory, and does as it is told.
fn holder(group: &Cgroup, copies: usize) -> Result<Peer> {
    let mut peer = Peer::fork(|link| {
        link.await_step()?;
        let mut region = Region::mergeable(&content(copies))?;
        let mut change = 0;
        link.step()?;
        loop {
            match link.receive()? {
                Order::Place(remainder) => {
                    region.relocate_to_remainder(remainder)?;
                    region.advise_raw(libc::MADV_HUGEPAGE)?;
                }
                Order::Verify(pages) => verify(&region, pages, change)?,
                Order::Write => {
                    (0..region.pages()).for_each(|page| region.page_mut(page)[99] ^= 0x55);
                    change ^= 0x55;
                    verify(&region, 0..region.pages(), change)?;
                }
                Order::End => return verify(&region, 0..region.pages(), change),
            }
            link.step()?;
        }
    })?;
    // What it allocates counts in the group, and nothing that it has inherited does.
    group.add(peer.pid())?;
    peer.round()?;
    Ok(peer)
}

/// Compares with the content, in which one byte of each page was changed. Takes no memory that would
/// be swapped itself.
fn verify(region: &Region, pages: Range<usize>, change: u8) -> Result<()> {
    for index in pages {
        let mut expected = pattern::page(SEED, index % PAGES);
        expected[99] ^= change;
        let differs = pattern::first_difference(region.page(index), &expected);
        ensure!(
            differs.is_none(),
            "DATA LOST: page {index} differs from byte {differs:?} on"
        );
    }
    Ok(())
}

/// Swap, and processes in a group whose pages are all merged.
struct Setting {
    // Dropped in this order: swap ends when nobody has anything in it.
    peers: Vec<Peer>,
    group: Cgroup,
    swap: Swap,
    large: LargeFolios,
}

impl Setting {
    /// `processes` that have the same, each `copies` times; all of it merged.
    fn merge(scanner: &Scanner, processes: usize, copies: usize) -> Result<Self> {
        if !swap::is_available() {
            return Err(Skip("this kernel has no zram to swap to".into()).into());
        }
        let large = LargeFolios::allow()?;
        let swap = Swap::on(64 * MIB)?;
        let group = Cgroup::new("large")?;
        let peers = (0..processes).map(|_| holder(&group, copies));
        let peers = peers.collect::<Result<_>>()?;
        let twins = (processes * copies - 1) * PAGES;
        scanner.expect(Counters::stable(PAGES as u64, twins as u64, 0))?;
        ksm::set_run(Run::Stop)?;
        Ok(Self {
            peers,
            group,
            swap,
            large,
        })
    }

    /// Swaps all out, and moves the memory of each process so that addresses and slots are aligned
    /// alike.
    fn evict(&mut self) -> Result<()> {
        for peer in 0..self.peers.len() {
            self.swap_out(peer)?;
        }
        for peer in &mut self.peers {
            let remainder = most_common_shift(&slots(peer)?)?;
            tell(peer, &Order::Place(remainder))?;
        }
        Ok(())
    }

    /// Reclaims until nearly all pages of a process are swapped out.
    fn swap_out(&self, peer: usize) -> Result<()> {
        wait::until("what was merged to be swapped out", || {
            self.group.reclaim(16 * MIB);
            let slots = slots(&self.peers[peer])?;
            let out = slots.iter().flatten().count();
            // Some pages may stay in memory.
            Ok((out >= slots.len() * 19 / 20).then_some(()))
        })
    }

    /// Has the first process read all that it has, or `pages` of it, into large folios.
    fn read_large(&mut self, pages: Range<usize>) -> Result<()> {
        let before = self.large.swapped_in()?;
        tell(&mut self.peers[0], &Order::Verify(pages))?;
        let folios = self.large.swapped_in()? - before;
        step(format!("{folios} large folios were read from swap"));
        // Where other pages were swapped out in between, slots and addresses do not match.
        ensure!(folios >= FOLIOS / 2, "not enough for what this is about");
        Ok(())
    }

    /// Has a process read pages that are in large folios of another's.
    fn read_copies(&mut self, peer: usize, pages: Range<usize>) -> Result<()> {
        let before = copies()?;
        let expected = pages.len() / 2;
        tell(&mut self.peers[peer], &Order::Verify(pages))?;
        let copied = copies()? - before;
        step(format!("{copied} pages of them were copied"));
        ensure!(copied >= expected as i64, "not enough: {expected} had to");
        Ok(())
    }

    fn tell_all(&mut self, order: &Order) -> Result<()> {
        self.peers.iter_mut().try_for_each(|peer| tell(peer, order))
    }

    /// Ends all processes in peace, and then swap.
    fn end(self) -> Result<()> {
        for mut peer in self.peers {
            peer.send(Order::End)?;
            peer.join()?;
        }
        drop(self.group);
        self.swap.off()
    }
}

fn tell(peer: &mut Peer, order: &Order) -> Result<()> {
    peer.send(order)?;
    peer.await_step()
}

/// How often a page from swap had to be copied as it was a KSM page once.
fn copies() -> Result<i64> {
    procfs::vmstat("ksm_swpin_copy")
}

/// The swap slots of a process's advised pages.
fn slots(peer: &Peer) -> Result<Vec<Option<u64>>> {
    let process = peer.pid().as_raw() as u32;
    let mut slots = Vec::new();
    for range in procfs::mergeable_ranges(process)? {
        slots.extend(pagemap::swap_slots_of(process, &range)?);
    }
    Ok(slots)
}

/// By how much most slots are ahead of their page's index, modulo the pages of a huge page.
fn most_common_shift(slots: &[Option<u64>]) -> Result<usize> {
    let mut votes = BTreeMap::<_, usize>::new();
    for (index, slot) in slots.iter().enumerate() {
        if let Some(slot) = slot {
            let ahead = *slot as usize + PAGES * HUGE_PAGES - index;
            *votes.entry(ahead % HUGE_PAGES).or_default() += 1;
        }
    }
    let (shift, _) = votes
        .into_iter()
        .max_by_key(|&(_, count)| count)
        .context("nothing is swapped out")?;
    Ok(shift)
}

fn both_live(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut setting = Setting::merge(&scanner, 2, 1)?;
    setting.evict()?;
    setting.read_large(0..PAGES)?;
    setting.read_copies(1, 0..PAGES)?;

    step("each has pages of its own, before and after another swap");
    setting.tell_all(&Order::Write)?;
    setting.tell_all(&Order::Verify(0..PAGES))?;
    setting.swap_out(0)?;
    setting.swap_out(1)?;
    setting.tell_all(&Order::Verify(0..PAGES))?;
    setting.end()
}

/// The second process has asked for half of its pages before the first ends, and for the other half
/// afterwards, when the `anon_vma` that the large folios name is freed.
fn first_ends(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut setting = Setting::merge(&scanner, 2, 1)?;
    setting.evict()?;
    // KSM's own records would keep the anon_vmas that they name.
    ksm::set_run(Run::Unmerge)?;
    setting.read_large(0..PAGES)?;
    setting.read_copies(1, 0..PAGES / 2)?;
    let mut first = setting.peers.remove(0);
    first.send(Order::End)?;
    first.join()?;
    // Long enough for RCU to free what the first one has left.
    thread::sleep(RCU_PATIENCE);
    step("the first has ended");
    setting.read_copies(0, PAGES / 2..PAGES)?;

    step("the second is swapped out, by its own reverse mappings");
    setting.swap_out(0)?;
    tell(&mut setting.peers[0], &Order::Verify(0..PAGES))?;
    tell(&mut setting.peers[0], &Order::Write)?;
    setting.swap_out(0)?;
    setting.end()
}

/// One `anon_vma` has both halves of the memory, at different indices.
fn twins(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut setting = Setting::merge(&scanner, 1, 2)?;
    setting.evict()?;
    setting.read_large(0..PAGES)?;
    setting.read_copies(0, PAGES..2 * PAGES)?;
    setting.tell_all(&Order::Write)?;
    setting.swap_out(0)?;
    setting.tell_all(&Order::Verify(0..2 * PAGES))?;
    setting.end()
}

fn swap_off(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut setting = Setting::merge(&scanner, 2, 1)?;
    setting.evict()?;
    setting.read_large(0..PAGES)?;
    let before = copies()?;
    let Setting {
        mut peers,
        group,
        swap,
        large,
    } = setting;
    swap.off()?;
    let copied = copies()? - before;
    step(format!("swapoff has copied {copied} pages"));
    ensure!(copied >= PAGES as i64 / 2, "not enough");

    let swap = Swap::on(64 * MIB)?;
    let whole = 0..PAGES;
    for order in [
        Order::Verify(whole.clone()),
        Order::Write,
        Order::Verify(whole),
    ] {
        peers.iter_mut().try_for_each(|peer| tell(peer, &order))?;
    }
    let mut setting = Setting {
        peers,
        group,
        swap,
        large,
    };
    setting.swap_out(0)?;
    setting.swap_out(1)?;
    setting.tell_all(&Order::Verify(0..PAGES))?;
    setting.end()
}

fn without_module(_: &Options) -> Result<()> {
    module::load(&module::file().context("$KSM_RS_KO is not set")?)?;
    let scanner = Scanner::start()?;
    let mut setting = Setting::merge(&scanner, 2, 1)?;
    setting.evict()?;
    drop(scanner);
    module::unload()?;
    step("the module has gone");
    setting.read_large(0..PAGES)?;
    setting.read_copies(1, 0..PAGES)?;
    setting.tell_all(&Order::Write)?;
    setting.end()
}
