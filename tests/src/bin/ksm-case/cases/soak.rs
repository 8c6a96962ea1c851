// SPDX-License-Identifier: GPL-2.0

//! Eight processes do whatever memory allows, and know at any time what every byte must be.
//!
//! The full version adds what the rest of the kernel does to memory: swap, migration, huge pages.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    cgroup::{self, Cgroup},
    control_file,
    ksm::{self, Counters, Run, Scanner},
    numa, pattern,
    peer::{Link, Peer},
    procfs,
    region::{Region, HUGE_PAGES},
    swap::{self, Swap},
    MIB, PAGE_SIZE,
};
use nix::unistd::Pid;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    case::{Case, Options, Skip},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "soak-short",
        "random map, advise, write, fork, exit, kill, munmap and run=0/1/2 lose no byte",
        soak_short,
    ),
    Case::new(
        "soak-full",
        "the same with swap, compaction, move_pages, huge pages and changing tunables",
        soak_full,
    )
    .on("um,x86:numa=2:cpus=2")
    .memory("768M"),
];

const PROCESSES: usize = 8;
const MAX_PIECES: usize = 6;
const MAX_PIECE_PAGES: usize = 32;

/// Number of page contents that all processes draw from, so that there is much to merge.
const TEMPLATES: usize = 12;

/// The full version takes at least this long, as there is more to happen.
const FULL_SECONDS: u64 = 60;

/// So many times as long as it was to take it may take until something was merged.
const PATIENCE: u32 = 4;

/// What happens beside what processes do to their own memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Short,
    Full,
}

fn soak_short(options: &Options) -> Result<()> {
    soak(options.seed, options.seconds, Extent::Short, |_| Ok(()))
}

fn soak_full(options: &Options) -> Result<()> {
    if !swap::is_available() {
        return Err(Skip("this kernel has no zram to swap to".into()).into());
    }
    let swap = Swap::on(128 * MIB)?;
    let group = Cgroup::new("soaked")?;
    group.add(Pid::this())?;
    let seconds = options.seconds.max(FULL_SECONDS);
    soak(options.seed, seconds, Extent::Full, |random| {
        disturb(random, &group)
    })?;
    for key in ["pswpout", "ksm_swpin_copy", "cow_ksm", "pgmigrate_success"] {
        step(format!("{key} {}", procfs::vmstat(key)?));
    }
    ensure!(procfs::vmstat("pswpout")? > 0, "nothing was swapped out");
    swap.off()?;
    // So that the group can be removed, and the case run again.
    cgroup::leave(Pid::this())?;
    for file in ["stable_node_chains", "stable_node_dups", "ksm_zero_pages"] {
        let left: i64 = ksm::read(file)?;
        ensure!(left == 0, "{file} is {left} at the end");
    }
    Ok(())
}

/// Something that the kernel, or an administrator, does to everybody's memory.
fn disturb(random: &mut ChaCha8Rng, group: &Cgroup) -> Result<()> {
    match random.random_range(0..10) {
        0..3 => group.reclaim(random.random_range(1..16) * MIB),
        3..6 => control_file::write("/proc/sys/vm/compact_memory", 1)?,
        _ => change_tunable(random),
    }
    Ok(())
}

fn change_tunable(random: &mut ChaCha8Rng) {
    let choices: &[(&str, &[u32])] = &[
        ("use_zero_pages", &[0, 1]),
        ("smart_scan", &[0, 1]),
        ("max_page_sharing", &[2, 3, 256]),
        ("merge_across_nodes", &[0, 1]),
        ("stable_node_chains_prune_millisecs", &[0, 2000]),
        ("pages_to_scan", &[1, 64, 10_000]),
    ];
    let (file, values) = choices[random.random_range(0..choices.len())];
    // Some are busy while pages are merged, and one is missing in kernels without NUMA.
    let _ = ksm::write(file, values[random.random_range(0..values.len())]);
}

fn soak(
    seed: u64,
    seconds: u64,
    extent: Extent,
    mut beside: impl FnMut(&mut ChaCha8Rng) -> Result<()>,
) -> Result<()> {
    step(format!("seed {seed}"));
    let scanner = Scanner::start()?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut peers = (0..PROCESSES)
        .map(|_| start_process(&mut random, extent))
        .collect::<Result<Vec<_>>>()?;

    let end = Instant::now() + Duration::from_secs(seconds);
    let mut most_sharing = 0;
    let patience = end + PATIENCE * Duration::from_secs(seconds);
    // A slow machine, with a slow scan, may take longer than that to merge anything.
    while Instant::now() < end || most_sharing == 0 && Instant::now() < patience {
        ksm::set_run(draw_run(&mut random))?;
        std::thread::sleep(Duration::from_millis(random.random_range(50..500)));
        most_sharing = most_sharing.max(ksm::counters()?.sharing);
        beside(&mut random)?;
        if random.random_ratio(1, 4) {
            let index = random.random_range(0..PROCESSES);
            let new = start_process(&mut random, extent)?;
            replace(&mut peers[index], new, random.random())?;
        }
    }
    step(format!("at most {most_sharing} pages were sharing"));
    ensure!(most_sharing > 0, "nothing was ever merged");

    step("all verify, then run=2 leaves nothing merged");
    let mut turns = 0;
    for peer in &mut peers {
        peer.step()?;
        turns += peer.receive::<u64>()?;
    }
    // It is done already if that was the last thing to happen.
    ksm::set_run(Run::Stop)?;
    ksm::set_run(Run::Unmerge)?;
    let now = ksm::counters()?;
    ensure!(now == Counters::ZERO, "left over: {now}");
    for mut peer in peers {
        peer.round()?;
        peer.join()?;
    }
    step(format!("{turns} random steps, bytes lost: 0"));
    drop(scanner);
    Ok(())
}

/// Mostly merging, with pauses and unmerging in between.
fn draw_run(random: &mut ChaCha8Rng) -> Run {
    match random.random_range(0..10) {
        0 => Run::Unmerge,
        1 => Run::Stop,
        _ => Run::Merge,
    }
}

/// Ends a process, either in peace or by SIGKILL, and puts another in its place.
fn replace(old: &mut Peer, new: Peer, gently: bool) -> Result<()> {
    let mut old = std::mem::replace(old, new);
    if !gently {
        return old.kill();
    }
    old.step()?;
    old.receive::<u64>()?;
    old.round()?;
    old.join()
}

fn start_process(random: &mut ChaCha8Rng, extent: Extent) -> Result<Peer> {
    let seed = random.next_u64();
    Peer::fork(move |link| {
        Actor::new(seed, extent)
            .act(link)
            .with_context(|| format!("the process with seed {seed}"))
    })
}

/// Memory, and a copy of what it must hold that no scanner ever touches.
struct Piece {
    region: Region,
    expected: Vec<u8>,
}

impl Piece {
    fn verify(&self) -> Result<()> {
        self.region.verify(&self.expected)
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.region.bytes_mut()[at..][..bytes.len()].copy_from_slice(bytes);
        self.expected[at..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// A process that does random things to its memory.
struct Actor {
    random: ChaCha8Rng,
    extent: Extent,
    templates: Vec<[u8; PAGE_SIZE]>,
    pieces: Vec<Piece>,
}

impl Actor {
    fn new(seed: u64, extent: Extent) -> Self {
        let mut templates: Vec<_> = (1..TEMPLATES).map(|i| pattern::page(1, i)).collect();
        templates.push([0; PAGE_SIZE]);
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            extent,
            templates,
            pieces: Vec::new(),
        }
    }

    /// Acts until told to stop, verifies, tells the number of steps, and verifies once more
    /// before the end.
    fn act(&mut self, link: &mut Link) -> Result<()> {
        let mut turns = 0u64;
        while !link.has_message()? {
            self.turn()?;
            turns += 1;
        }
        link.await_step()?;
        self.verify()?;
        link.send(turns)?;
        link.await_step()?;
        self.verify()?;
        link.step()
    }

    fn verify(&self) -> Result<()> {
        self.pieces.iter().try_for_each(Piece::verify)
    }

    /// One random step.
    fn turn(&mut self) -> Result<()> {
        if self.pieces.is_empty() {
            return self.map();
        }
        let index = self.random.random_range(0..self.pieces.len());
        if self.extent == Extent::Full && self.random.random_ratio(1, 8) {
            return self.provoke(index);
        }
        match self.random.random_range(0..100) {
            0..5 if self.pieces.len() < MAX_PIECES => self.map(),
            5..8 => self.unmap(index),
            8..11 => self.unmap_part(index),
            11..14 => self.resize(index),
            14..16 => self.pieces[index].region.relocate(),
            16..20 => self.advise(index),
            20..22 => self.discard(index),
            22..23 => self.fork(),
            23..50 => self.write_page(index),
            50..80 => self.write_bytes(index),
            80..90 => {
                std::thread::sleep(Duration::from_millis(self.random.random_range(0..10)));
                Ok(())
            }
            _ => self.pieces[index].verify(),
        }
    }

    /// Asks the kernel for something that it may refuse, and that changes no content.
    fn provoke(&mut self, index: usize) -> Result<()> {
        let region = &self.pieces[index].region;
        match self.random.random_range(0..10) {
            0..3 => drop(numa::move_to(region, self.random.random_range(0..2))),
            3..5 => drop(region.advise_raw(libc::MADV_PAGEOUT)),
            5 => drop(region.advise_raw(libc::MADV_HUGEPAGE)),
            6 => drop(region.advise_raw(libc::MADV_NOHUGEPAGE)),
            7 => drop(region.advise_raw(libc::MADV_COLLAPSE)),
            8 => drop(region.advise_raw(libc::MADV_COLD)),
            _ if self.pieces.len() < MAX_PIECES => return self.map_huge(),
            _ => {}
        }
        Ok(())
    }

    fn map_huge(&mut self) -> Result<()> {
        let expected: Vec<u8> = (0..HUGE_PAGES).flat_map(|_| self.draw_page()).collect();
        let region = Region::huge(&expected)?;
        region.advise_mergeable()?;
        self.pieces.push(Piece { region, expected });
        Ok(())
    }

    fn draw_page(&mut self) -> [u8; PAGE_SIZE] {
        self.templates[self.random.random_range(0..TEMPLATES)]
    }

    fn map(&mut self) -> Result<()> {
        let pages = self.random.random_range(1..=MAX_PIECE_PAGES);
        let expected: Vec<u8> = (0..pages).flat_map(|_| self.draw_page()).collect();
        let region = Region::mergeable(&expected)?;
        self.pieces.push(Piece { region, expected });
        Ok(())
    }

    fn unmap(&mut self, index: usize) -> Result<()> {
        self.pieces.swap_remove(index).verify()
    }

    fn unmap_part(&mut self, index: usize) -> Result<()> {
        let piece = &mut self.pieces[index];
        if piece.region.pages() > 1 {
            let at = self.random.random_range(1..piece.region.pages());
            drop(piece.region.split_off(at)?);
            piece.expected.truncate(at * PAGE_SIZE);
        }
        Ok(())
    }

    fn resize(&mut self, index: usize) -> Result<()> {
        let pages = self.random.random_range(1..=MAX_PIECE_PAGES);
        let piece = &mut self.pieces[index];
        piece.region.resize(pages)?;
        piece.expected.resize(pages * PAGE_SIZE, 0);
        Ok(())
    }

    fn advise(&mut self, index: usize) -> Result<()> {
        let region = &self.pieces[index].region;
        if self.random.random_ratio(2, 3) {
            region.advise_mergeable()
        } else {
            region.advise_unmergeable()
        }
    }

    fn discard(&mut self, index: usize) -> Result<()> {
        let piece = &mut self.pieces[index];
        piece.region.discard()?;
        piece.expected.fill(0);
        Ok(())
    }

    fn write_page(&mut self, index: usize) -> Result<()> {
        let content = self.draw_page();
        let page = self
            .random
            .random_range(0..self.pieces[index].region.pages());
        self.pieces[index].write(page * PAGE_SIZE, &content);
        Ok(())
    }

    fn write_bytes(&mut self, index: usize) -> Result<()> {
        let mut bytes = [0; 16];
        let length = self.random.random_range(1..=bytes.len());
        self.random.fill_bytes(&mut bytes[..length]);
        let piece = &mut self.pieces[index];
        let at = self.random.random_range(0..=piece.expected.len() - length);
        piece.write(at, &bytes[..length]);
        Ok(())
    }

    /// A child verifies its copy of everything, writes to it, and verifies again.
    fn fork(&mut self) -> Result<()> {
        Peer::fork(|_| {
            self.verify()?;
            for index in 0..self.pieces.len() {
                self.write_bytes(index)?;
                self.write_page(index)?;
            }
            self.verify()
        })?
        .join()?;
        self.verify()
    }
}
