// SPDX-License-Identifier: GPL-2.0

//! What memory is filled with, page by page and in place.

use ksm_tests::{pattern, PAGE_SIZE};

const SEED: u64 = 1;

/// Each page gets the content whose number `content_of` gives for its place.
fn contents(memory: &mut [u8], content_of: impl Fn(usize) -> usize) {
    for (index, page) in memory.chunks_exact_mut(PAGE_SIZE).enumerate() {
        page.copy_from_slice(&pattern::page(SEED, content_of(index)));
    }
}

/// No two pages are equal.
pub fn unique(memory: &mut [u8]) {
    contents(memory, |index| index);
}

/// No two pages are equal, neither here nor in memory of another `part`.
pub fn unique_part(memory: &mut [u8], part: usize) {
    let pages = memory.len() / PAGE_SIZE;
    contents(memory, |index| part * pages + index);
}

/// Each page has one equal, as far away as can be.
pub fn pairs(memory: &mut [u8]) {
    let half = (memory.len() / PAGE_SIZE / 2).max(1);
    contents(memory, |index| index % half);
}

/// Each page has one equal here, and none in memory of another `part`.
pub fn pairs_of_part(memory: &mut [u8], part: usize) {
    let half = (memory.len() / PAGE_SIZE / 2).max(1);
    contents(memory, |index| part * half + index % half);
}

/// Every second page has one equal, the others have none.
pub fn half_pairs(memory: &mut [u8]) {
    let half = (memory.len() / PAGE_SIZE / 2).max(1);
    contents(memory, |index| match index % 2 {
        0 => index,
        _ => 2 * (index % half) + 1,
    });
}

/// All pages are equal.
pub fn same(memory: &mut [u8]) {
    contents(memory, |_| 0);
}

/// All pages are zeros, and are there.
pub fn zeros(memory: &mut [u8]) {
    memory.fill(0);
}

/// Pages that are equal but for eight bytes at `offset`.
pub fn differing_at(memory: &mut [u8], offset: usize) {
    let base = pattern::page(SEED, 0);
    for (index, page) in memory.chunks_exact_mut(PAGE_SIZE).enumerate() {
        page.copy_from_slice(&base);
        page[offset..][..8].copy_from_slice(&scattered(index).to_be_bytes());
    }
}

/// A different number for each index; numbers of neighbours are far apart.
pub fn scattered(index: usize) -> u64 {
    (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The pages of process `part` of `parts`, in all of which together each content stands
/// `sharers` times. Little is in a page, so that it takes little room in compressed swap.
pub fn shared(memory: &mut [u8], part: usize, parts: usize, sharers: usize) {
    for (index, page) in memory.chunks_exact_mut(PAGE_SIZE).enumerate() {
        let content = (index * parts + part) / sharers;
        page.fill(0);
        page[..8].copy_from_slice(&scattered(content).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const PAGES: usize = 64;

    /// How many contents there are once, twice and so on.
    fn copies(fill: impl FnOnce(&mut [u8])) -> HashMap<usize, usize> {
        let mut memory = vec![0xff; PAGES * PAGE_SIZE];
        fill(&mut memory);
        let mut contents = HashMap::new();
        for page in memory.chunks(PAGE_SIZE) {
            *contents.entry(page).or_insert(0usize) += 1;
        }
        let mut copies = HashMap::new();
        for count in contents.into_values() {
            *copies.entry(count).or_default() += 1;
        }
        copies
    }

    #[test]
    fn there_are_as_many_copies_as_are_said() {
        assert_eq!(copies(unique), HashMap::from([(1, PAGES)]));
        assert_eq!(copies(|m| unique_part(m, 3)), HashMap::from([(1, PAGES)]));
        assert_eq!(copies(pairs), HashMap::from([(2, PAGES / 2)]));
        let of_parts = |memory: &mut [u8]| {
            for (part, memory) in memory.chunks_mut(PAGES / 4 * PAGE_SIZE).enumerate() {
                pairs_of_part(memory, part);
            }
        };
        assert_eq!(copies(of_parts), HashMap::from([(2, PAGES / 2)]));
        assert_eq!(
            copies(half_pairs),
            HashMap::from([(1, PAGES / 2), (2, PAGES / 4)])
        );
        assert_eq!(copies(same), HashMap::from([(PAGES, 1)]));
        assert_eq!(copies(zeros), HashMap::from([(PAGES, 1)]));
        assert_eq!(
            copies(|m| differing_at(m, 4088)),
            HashMap::from([(1, PAGES)])
        );
    }

    #[test]
    fn sharers_are_spread_over_the_processes() {
        let fill = |memory: &mut [u8]| {
            for (part, memory) in memory.chunks_mut(PAGES / 4 * PAGE_SIZE).enumerate() {
                shared(memory, part, 4, 8);
            }
        };
        assert_eq!(copies(fill), HashMap::from([(8, PAGES / 8)]));
        assert_eq!(
            copies(|m| shared(m, 1, 4, 8)),
            HashMap::from([(2, PAGES / 2)])
        );
    }
}
