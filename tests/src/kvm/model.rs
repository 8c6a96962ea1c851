// SPDX-License-Identifier: GPL-2.0

//! What a guest's memory must hold, byte for byte.

use std::ops::Range;

use super::code::{self, MULTIPLIER, SERIES_INCREMENT, SERIES_MULTIPLIER};
use crate::PAGE_SIZE;

/// Words in a page.
pub const WORDS: usize = PAGE_SIZE / 8;

// The pages of the head.
const TOP_TABLE: usize = 0;
const MIDDLE_TABLE: usize = 1;
const BOTTOM_TABLE: usize = 2;
const CODE: usize = 3;
const FACTORS: usize = 4;
const CHECKSUMS: usize = 5;

/// Pages of the head that never change.
pub const CONSTANT_PAGES: usize = CHECKSUMS;

/// Where the page tables begin, for the guest.
pub const PAGE_TABLES: u64 = address_of(TOP_TABLE);

/// Where the code is, for the guest.
pub const CODE_ADDRESS: u64 = address_of(CODE);

/// Where the factors are by which changes of words change a checksum, for the guest.
pub const FACTORS_ADDRESS: u64 = address_of(FACTORS);

const fn address_of(page: usize) -> u64 {
    (page * PAGE_SIZE) as u64
}

// Bits of an entry of a page table.
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// Set from the start, so that the tables do not change.
const ACCESSED_AND_DIRTY: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const ENTRY: u64 = PRESENT | WRITABLE | ACCESSED_AND_DIRTY;

/// What an entry of the last table maps.
const LARGE_PAGE: u64 = 2 << 20;

/// What a guest is told to write.
#[derive(Clone, Debug)]
pub struct Writes {
    /// To which pages of the bank.
    pub pages: Range<usize>,
    /// How often.
    pub count: u64,
    /// Where the series of pseudo-random numbers begins.
    pub seed: u64,
}

/// A copy of what a guest's memory must hold.
pub struct Model {
    head: Vec<u8>,
    bank: Vec<u8>,
}

impl Model {
    /// What a guest begins with that has `bank` in its bank.
    pub fn new(bank: &[u8]) -> Self {
        let pages = bank.len() / PAGE_SIZE;
        let head = vec![0; head_pages(pages) * PAGE_SIZE];
        let mut model = Self {
            head,
            bank: bank.to_vec(),
        };
        model.make_page_tables();
        model.head[CODE * PAGE_SIZE..][..code::all().len()].copy_from_slice(code::all());
        for (index, factor) in factors().into_iter().enumerate() {
            set_word(&mut model.head, FACTORS * WORDS + index, factor);
        }
        model.make_checksums();
        model
    }

    /// Every address of the first GiB maps to itself.
    fn make_page_tables(&mut self) {
        let middle = address_of(MIDDLE_TABLE) | ENTRY;
        let bottom = address_of(BOTTOM_TABLE) | ENTRY;
        set_word(&mut self.head, TOP_TABLE * WORDS, middle);
        set_word(&mut self.head, MIDDLE_TABLE * WORDS, bottom);
        for index in 0..WORDS {
            let entry = (index as u64 * LARGE_PAGE) | ENTRY | LARGE;
            set_word(&mut self.head, BOTTOM_TABLE * WORDS + index, entry);
        }
    }

    fn make_checksums(&mut self) {
        let constant = &self.head[..CONSTANT_PAGES * PAGE_SIZE];
        let pages = constant
            .chunks(PAGE_SIZE)
            .chain(self.bank.chunks(PAGE_SIZE));
        let checksums: Vec<_> = pages.map(checksum).collect();
        for (index, checksum) in checksums.into_iter().enumerate() {
            set_word(&mut self.head, CHECKSUMS * WORDS + index, checksum);
        }
    }

    /// What the head must hold.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// What the bank must hold.
    pub fn bank(&self) -> &[u8] {
        &self.bank
    }

    /// Pages in the bank.
    pub fn pages(&self) -> usize {
        self.bank.len() / PAGE_SIZE
    }

    /// Does as the guest does.
    pub fn write(&mut self, writes: &Writes) {
        let factors = factors();
        let mut number = writes.seed;
        for _ in 0..writes.count {
            number = number
                .wrapping_mul(SERIES_MULTIPLIER)
                .wrapping_add(SERIES_INCREMENT);
            let offset = ((number >> 32) * writes.pages.len() as u64) >> 32;
            let page = writes.pages.start + offset as usize;
            let index = (number >> 20) as usize % WORDS;
            let change = number.wrapping_sub(word(&self.bank, page * WORDS + index));
            set_word(&mut self.bank, page * WORDS + index, number);
            let at = CHECKSUMS * WORDS + CONSTANT_PAGES + page;
            let sum = word(&self.head, at).wrapping_add(change.wrapping_mul(factors[index]));
            set_word(&mut self.head, at, sum);
        }
    }
}

/// Pages in the head of a guest with so many pages in its bank.
pub fn head_pages(bank_pages: usize) -> usize {
    CHECKSUMS + (CONSTANT_PAGES + bank_pages).div_ceil(WORDS)
}

/// Where the checksum of a constant page of the head is, for the guest.
pub fn checksum_of_head(page: usize) -> u64 {
    address_of(CHECKSUMS) + 8 * page as u64
}

/// Where the checksum of a page of the bank is, for the guest.
pub fn checksum_of_bank(page: usize) -> u64 {
    checksum_of_head(CONSTANT_PAGES + page)
}

fn checksum(page: &[u8]) -> u64 {
    (0..WORDS).fold(0, |sum: u64, index| {
        sum.wrapping_mul(MULTIPLIER).wrapping_add(word(page, index))
    })
}

/// By what the change of a word is multiplied to give that of the checksum.
fn factors() -> [u64; WORDS] {
    let mut factors = [1; WORDS];
    for index in (0..WORDS - 1).rev() {
        factors[index] = MULTIPLIER.wrapping_mul(factors[index + 1]);
    }
    factors
}

fn word(bytes: &[u8], index: usize) -> u64 {
    let word = &bytes[index * 8..][..8];
    u64::from_le_bytes(word.try_into().expect("eight bytes"))
}

fn set_word(bytes: &mut [u8], index: usize, value: u64) {
    bytes[index * 8..][..8].copy_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern;

    fn checksums(model: &Model) -> Vec<u64> {
        let first = CHECKSUMS * WORDS + CONSTANT_PAGES;
        (0..model.pages())
            .map(|page| word(&model.head, first + page))
            .collect()
    }

    #[test]
    fn checksums_follow_what_is_written() {
        let mut model = Model::new(&pattern::pages(1, 7));
        let before = model.bank.clone();
        model.write(&Writes {
            pages: 2..5,
            count: 500,
            seed: 3,
        });
        let computed: Vec<_> = model.bank.chunks(PAGE_SIZE).map(checksum).collect();
        assert_eq!(checksums(&model), computed);
        assert_eq!(model.bank[..2 * PAGE_SIZE], before[..2 * PAGE_SIZE]);
        assert_eq!(model.bank[5 * PAGE_SIZE..], before[5 * PAGE_SIZE..]);
        assert_ne!(model.bank, before);
    }

    #[test]
    fn any_word_counts() {
        let page = pattern::page(1, 1);
        for index in [0, 1, WORDS - 1] {
            let mut other = page;
            other[index * 8] ^= 1;
            assert_ne!(checksum(&page), checksum(&other));
        }
    }

    #[test]
    fn the_head_has_room_for_all_checksums() {
        assert_eq!(head_pages(WORDS - CONSTANT_PAGES), CHECKSUMS + 1);
        assert_eq!(head_pages(WORDS - CONSTANT_PAGES + 1), CHECKSUMS + 2);
    }
}
