// SPDX-License-Identifier: GPL-2.0

//! Pointers that are followed through memory, line by line, in an order that no CPU foresees.
//!
//! Each load waits for the one before: what is measured is how long the caches, or the memory, take to answer.

use std::time::{Duration, Instant};

use anyhow::Result;
use ksm_tests::{region::Region, PAGE_SIZE};
use rand_chacha::{
    rand_core::{Rng, SeedableRng},
    ChaCha8Rng,
};

/// Bytes that a CPU fetches at once.
const LINE: usize = 64;

/// Loads of a sample: long enough for the clock, shorter than what else happens to a program.
const LOADS: usize = 256;

/// Nanoseconds a load, of each sample.
pub fn run(bytes: usize, time: Duration) -> Result<Vec<f64>> {
    let mut memory = Region::for_huge_pages(bytes / PAGE_SIZE)?;
    let memory = memory.bytes_mut();
    for (line, next) in cycle(bytes / LINE).into_iter().enumerate() {
        let pointer = (next * LINE).to_ne_bytes();
        memory[line * LINE..][..pointer.len()].copy_from_slice(&pointer);
    }
    let (mut samples, mut place) = (Vec::new(), 0);
    let begin = Instant::now();
    let mut before = begin;
    while before - begin < time {
        for _ in 0..LOADS {
            place = pointer_at(memory, place);
        }
        let now = Instant::now();
        samples.push((now - before).as_nanos() as f64 / LOADS as f64);
        before = now;
    }
    std::hint::black_box(place);
    Ok(samples)
}

fn pointer_at(memory: &[u8], place: usize) -> usize {
    let (pointer, _) = memory[place..]
        .split_first_chunk()
        .expect("a line is longer");
    usize::from_ne_bytes(*pointer)
}

/// For each of `length` places the next one, so that one way leads through all (Sattolo).
fn cycle(length: usize) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut next: Vec<usize> = (0..length).collect();
    for last in (1..length).rev() {
        let other = rng.next_u64() as usize % last;
        next.swap(last, other);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_leads_through_all_places() {
        let next = cycle(1000);
        let mut place = 0;
        for step in 1..=1000 {
            place = next[place];
            assert_eq!(place == 0, step == 1000);
        }
    }
}
