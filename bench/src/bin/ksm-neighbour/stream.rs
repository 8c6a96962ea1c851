// SPDX-License-Identifier: GPL-2.0

//! Memory that is read from one end to the other, as fast as it comes.

use std::time::{Duration, Instant};

use anyhow::Result;
use ksm_tests::{region::Region, MIB, PAGE_SIZE};

/// Microseconds for each MiB.
pub fn run(bytes: usize, time: Duration) -> Result<Vec<f64>> {
    let mut memory = Region::for_huge_pages(bytes / PAGE_SIZE)?;
    memory.bytes_mut().fill(1);
    let (mut samples, mut sum) = (Vec::new(), 0_u64);
    let begin = Instant::now();
    while begin.elapsed() < time {
        for piece in memory.bytes().chunks_exact(MIB) {
            let before = Instant::now();
            sum ^= sum_of(std::hint::black_box(piece));
            samples.push(before.elapsed().as_nanos() as f64 / 1000.0);
        }
    }
    std::hint::black_box(sum);
    Ok(samples)
}

fn sum_of(piece: &[u8]) -> u64 {
    piece.chunks_exact(size_of::<u64>()).fold(0, |sum, word| {
        let word = word.try_into().expect("a chunk is as long");
        sum.wrapping_add(u64::from_ne_bytes(word))
    })
}
