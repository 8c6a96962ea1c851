// SPDX-License-Identifier: GPL-2.0

//! Memory of which it is known what every byte must be.

use anyhow::Result;
use ksm_tests::{
    pagemap, pattern,
    region::{Region, HUGE_PAGES},
    PAGE_SIZE,
};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// The series of pages that everybody draws from, so that there is much to merge.
const SERIES: u64 = 1;
const TEMPLATES: usize = 6;

/// A page that others have as well; one in so many is of zeros.
pub fn draw_page(random: &mut ChaCha8Rng) -> [u8; PAGE_SIZE] {
    match random.random_range(0..=TEMPLATES) {
        TEMPLATES => [0; PAGE_SIZE],
        template => pattern::page(SERIES, template),
    }
}

/// `count` pages that others have as well.
pub fn draw_pages(random: &mut ChaCha8Rng, count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| draw_page(random)).collect()
}

/// An advised region, and what must be in it.
pub struct Mirror {
    pub region: Region,
    pub expected: Vec<u8>,
}

impl Mirror {
    pub fn new(random: &mut ChaCha8Rng, pages: usize) -> Result<Self> {
        let expected = draw_pages(random, pages);
        let region = Region::mergeable(&expected)?;
        Ok(Self { region, expected })
    }

    /// One huge page, to begin with.
    pub fn huge(random: &mut ChaCha8Rng) -> Result<Self> {
        let expected = draw_pages(random, HUGE_PAGES);
        let region = Region::huge(&expected)?;
        region.advise_mergeable()?;
        Ok(Self { region, expected })
    }

    pub fn verify(&self) -> Result<()> {
        self.region.verify(&self.expected)
    }

    /// Writes a whole page that others have, or a few bytes that make a page unlike any other.
    pub fn write_somewhere(&mut self, random: &mut ChaCha8Rng) {
        let page = random.random_range(0..self.region.pages()) * PAGE_SIZE;
        if random.random_ratio(2, 3) {
            let content = draw_page(random);
            self.write(page, &content);
        } else {
            let bytes: [u8; 8] = random.random();
            let at = page + random.random_range(0..=PAGE_SIZE - bytes.len());
            self.write(at, &bytes);
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.region.bytes_mut()[at..][..bytes.len()].copy_from_slice(bytes);
        self.expected[at..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Whether somebody else maps a page of this region that is a KSM page; false if there is no telling.
    pub fn is_shared_with_others(&self) -> Result<bool> {
        let Ok(frames) = pagemap::frames(&self.region) else {
            return Ok(false);
        };
        for frame in &frames {
            let ours = frames.iter().filter(|other| *other == frame).count();
            if pagemap::is_ksm(*frame)? && pagemap::mappings(*frame)? > ours as u64 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How many pages have a frame of KSM; none if there is no telling, since some just move.
    ///
    /// A frame may be left, and become a KSM page of others, between two looks, so that it must be
    /// found twice.
    pub fn merged_pages(&self) -> Result<usize> {
        let Ok(before) = pagemap::frames(&self.region) else {
            return Ok(0);
        };
        let flags = before.iter().map(|frame| pagemap::is_ksm(*frame));
        let flags: Vec<bool> = flags.collect::<Result<_>>()?;
        let Ok(after) = pagemap::frames(&self.region) else {
            return Ok(0);
        };
        let seen = before.iter().zip(&after).zip(&flags);
        Ok(seen
            .filter(|((then, now), is_ksm)| then == now && **is_ksm)
            .count())
    }
}
