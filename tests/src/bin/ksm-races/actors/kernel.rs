// SPDX-License-Identifier: GPL-2.0

//! What devices and the rest of the kernel do to memory.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::{Context, Result};
use ksm_tests::{
    cgroup::Cgroup,
    control_file,
    memory_block::Block,
    numa, pagemap, procfs,
    region::Region,
    swap::{Swap, Zram},
    MIB, PAGE_SIZE,
};
use nix::unistd::Pid;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    actor::{rest, Actor},
    mirror::Mirror,
};

const PAGES: usize = 48;

/// Pages on the device.
const DEVICE_PAGES: usize = 512;

/// Reads from a device straight into mergeable memory, and writes from there to it.
pub fn reading_direct(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    let zram = Zram::new(DEVICE_PAGES * PAGE_SIZE)?;
    let device = zram.open_direct()?;
    let source = Mirror::new(random, DEVICE_PAGES)?;
    device
        .write_all_at(source.region.bytes(), 0)
        .context("write")?;
    Ok(Box::new(ReadingDirect {
        on_device: source.expected,
        memory: Mirror::new(random, PAGES)?,
        device,
        _zram: zram,
    }))
}

struct ReadingDirect {
    on_device: Vec<u8>,
    memory: Mirror,
    device: File,
    _zram: Zram,
}

impl Actor for ReadingDirect {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let count = random.random_range(1..=PAGES);
        let at = random.random_range(0..=DEVICE_PAGES - count) * PAGE_SIZE;
        let to = random.random_range(0..=PAGES - count) * PAGE_SIZE;
        let length = count * PAGE_SIZE;
        let memory = &mut self.memory;
        if random.random_ratio(3, 4) {
            self.device
                .read_exact_at(&mut memory.region.bytes_mut()[to..][..length], at as u64)
                .context("read")?;
            memory.expected[to..][..length].copy_from_slice(&self.on_device[at..][..length]);
        } else {
            self.device
                .write_all_at(&memory.region.bytes()[to..][..length], at as u64)
                .context("write")?;
            self.on_device[at..][..length].copy_from_slice(&memory.expected[to..][..length]);
        }
        memory.verify()?;
        rest(random, 5_000);
        memory.verify()
    }

    fn finish(&mut self) -> Result<()> {
        self.memory.verify()
    }
}

/// Has its memory swapped out, and touches it again.
pub fn reclaiming(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    let swap = Swap::on(32 * MIB)?;
    let group = Cgroup::new(&format!("reclaimed-{}", Pid::this()))?;
    group.add(Pid::this())?;
    Ok(Box::new(Reclaiming {
        memory: Mirror::new(random, 4 * PAGES)?,
        group,
        out: 0,
        _swap: swap,
    }))
}

struct Reclaiming {
    memory: Mirror,
    group: Cgroup,
    out: usize,
    _swap: Swap,
}

impl Actor for Reclaiming {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        self.group
            .reclaim_anonymous(random.random_range(1..=4 * PAGES) * PAGE_SIZE);
        self.out += procfs::swapped_pages("self")?;
        if random.random() {
            self.memory.write_somewhere(random);
        }
        self.memory.verify()?;
        rest(random, 10_000);
        Ok(())
    }

    fn has_succeeded(&self) -> bool {
        self.out > 0
    }

    fn finish(&mut self) -> Result<()> {
        self.memory.verify()
    }
}

/// Memory in pieces, of which some come and go. So compaction always has pages in low frames to move,
/// and holes above them. Without it that would depend on the kernel's size and on what has run before.
struct Holes {
    pieces: Vec<Region>,
}

impl Holes {
    /// Pages in a piece. Compaction looks for free frames in steps of up to 32.
    const PAGES: usize = 64;

    /// Pieces: as much as two blocks of User Mode Linux, as compaction moves pages from one block to
    /// another.
    const PIECES: usize = 32;

    /// Pieces that are given back in one round, at most.
    const MOST: usize = 3;

    fn new() -> Result<Self> {
        let piece = |_| Region::with_content(&[1; Self::PAGES * PAGE_SIZE]);
        let pieces = (0..Self::PIECES).map(piece).collect::<Result<_>>()?;
        Ok(Self { pieces })
    }

    /// Gives back a few of the pieces in high frames.
    fn open(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let mut by_frame = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            // A page that somebody else is moving right now has none.
            by_frame.push((pagemap::frame(piece, 0).unwrap_or_default(), index));
        }
        by_frame.sort_unstable();
        let high = by_frame.split_off(Self::PIECES / 2);
        for _ in 0..random.random_range(1..=Self::MOST) {
            let (_, index) = high[random.random_range(0..high.len())];
            self.pieces[index].discard()?;
        }
        Ok(())
    }

    /// Takes frames for them again.
    fn close(&self) -> Result<()> {
        self.pieces.iter().try_for_each(Region::populate)
    }
}

/// Moves its pages, and those that it shares, to another NUMA node, or has memory compacted.
pub fn migrating(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Migrating {
        memory: Mirror::new(random, PAGES)?,
        holes: match numa::has_node(1) {
            true => None,
            false => Some(Holes::new()?),
        },
        moved: 0,
    }))
}

struct Migrating {
    memory: Mirror,
    /// For compaction.
    holes: Option<Holes>,
    moved: i64,
}

impl Actor for Migrating {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        self.moved += match &mut self.holes {
            None => numa::move_to(&self.memory.region, random.random_range(0..2))? as i64,
            Some(holes) => {
                holes.open(random)?;
                let before = procfs::vmstat("pgmigrate_success")?;
                control_file::write("/proc/sys/vm/compact_memory", 1)?;
                let moved = procfs::vmstat("pgmigrate_success")? - before;
                holes.close()?;
                moved
            }
        };
        self.memory.write_somewhere(random);
        self.memory.verify()?;
        rest(random, 5_000);
        Ok(())
    }

    fn has_succeeded(&self) -> bool {
        self.moved > 0
    }

    fn finish(&mut self) -> Result<()> {
        self.memory.verify()
    }
}

/// Takes blocks of memory offline, and brings them back.
pub fn offlining(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Offlining {
        blocks: Block::all_movable()?,
        memory: Mirror::new(random, 4 * PAGES)?,
        gone: 0,
    }))
}

struct Offlining {
    blocks: Vec<Block>,
    memory: Mirror,
    gone: usize,
}

impl Actor for Offlining {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        let block = &self.blocks[random.random_range(0..self.blocks.len())];
        self.gone += usize::from(self.take_away(block)?);
        self.memory.write_somewhere(random);
        self.memory.verify()
    }

    fn has_succeeded(&self) -> bool {
        self.gone > 0
    }

    fn finish(&mut self) -> Result<()> {
        self.memory.verify()
    }
}

impl Offlining {
    /// Takes a block offline for a moment; that may be refused, since pages are in use.
    fn take_away(&self, block: &Block) -> Result<bool> {
        if block.take_offline().is_err() {
            return Ok(false);
        }
        self.memory.verify()?;
        block.bring_online()?;
        Ok(true)
    }
}
