// SPDX-License-Identifier: GPL-2.0

//! Eight processes do whatever memory allows, and know at any time what every byte must be.

use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Counters, Run, Scanner},
    pattern,
    peer::{Link, Peer},
    region::Region,
    PAGE_SIZE,
};
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[Case::new(
    "soak-short",
    "random map, advise, write, fork, exit, kill, munmap and run=0/1/2 lose no byte",
    soak,
)];

const PROCESSES: usize = 8;
const MAX_PIECES: usize = 6;
const MAX_PIECE_PAGES: usize = 32;

/// Number of page contents that all processes draw from, so that there is much to merge.
const TEMPLATES: usize = 12;

fn soak(options: &Options) -> Result<()> {
    step(format!("seed {}", options.seed));
    let scanner = Scanner::start()?;
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let mut peers = (0..PROCESSES)
        .map(|_| start_process(&mut random))
        .collect::<Result<Vec<_>>>()?;

    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut most_sharing = 0;
    while Instant::now() < end {
        ksm::set_run(draw_run(&mut random))?;
        std::thread::sleep(Duration::from_millis(random.random_range(50..500)));
        most_sharing = most_sharing.max(ksm::counters()?.sharing);
        if random.random_ratio(1, 4) {
            let index = random.random_range(0..PROCESSES);
            let new = start_process(&mut random)?;
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

fn start_process(random: &mut ChaCha8Rng) -> Result<Peer> {
    let seed = random.next_u64();
    Peer::fork(move |link| {
        Actor::new(seed)
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
    templates: Vec<[u8; PAGE_SIZE]>,
    pieces: Vec<Piece>,
}

impl Actor {
    fn new(seed: u64) -> Self {
        let mut templates: Vec<_> = (1..TEMPLATES).map(|i| pattern::page(1, i)).collect();
        templates.push([0; PAGE_SIZE]);
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
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
