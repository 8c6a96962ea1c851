// SPDX-License-Identifier: GPL-2.0

//! What devices and the rest of the kernel do to memory.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::{Context, Result};
use ksm_tests::{
    cgroup::Cgroup,
    control_file,
    memory_block::Block,
    numa, procfs,
    swap::{Swap, Zram},
    MIB, PAGE_SIZE,
};
use nix::unistd::Pid;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    actor::{rest, Actor},
    mirror::{draw_pages, Mirror},
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

/// Moves its pages, and those that it shares, to another NUMA node, or has memory compacted.
pub fn migrating(random: &mut ChaCha8Rng) -> Result<Box<dyn Actor>> {
    Ok(Box::new(Migrating {
        memory: Mirror::new(random, PAGES)?,
        moved: 0,
    }))
}

struct Migrating {
    memory: Mirror,
    moved: i64,
}

impl Actor for Migrating {
    fn round(&mut self, random: &mut ChaCha8Rng) -> Result<()> {
        if numa::has_node(1) {
            self.moved += numa::move_to(&self.memory.region, random.random_range(0..2))? as i64;
        } else {
            // Holes are what compaction fills.
            let pieces = draw_pages(random, PAGES);
            let mirror = Mirror {
                region: ksm_tests::region::Region::mergeable(&pieces)?,
                expected: pieces,
            };
            let before = procfs::vmstat("pgmigrate_success")?;
            control_file::write("/proc/sys/vm/compact_memory", 1)?;
            self.moved += procfs::vmstat("pgmigrate_success")? - before;
            mirror.verify()?;
        }
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
