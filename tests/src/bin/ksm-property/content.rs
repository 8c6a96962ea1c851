// SPDX-License-Identifier: GPL-2.0

//! What is written to pages: few contents, so that many pages are equal.

use ksm_tests::{pattern, PAGE_SIZE};
use serde::{Deserialize, Serialize};

/// The series of random pages that all but [`Content::Unique`] draw from.
const SERIES: u64 = 1;

/// The contents of some pages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Content {
    /// Zeros.
    Zero,
    /// Each page is the same template.
    Same(u8),
    /// The pages are templates one after the other.
    Series(u8),
    /// As `Same`, but for the last bit of each page.
    LastBit(u8),
    /// Random pages of a series of their own.
    Unique(u8),
}

impl Content {
    /// Number of templates.
    pub const TEMPLATES: u8 = 4;

    /// The page number `index`.
    pub fn page(self, index: usize) -> [u8; PAGE_SIZE] {
        let template = |number: u8| pattern::page(SERIES, number.into());
        match self {
            Self::Zero => [0; PAGE_SIZE],
            Self::Same(number) => template(number),
            Self::Series(first) => {
                let number = (usize::from(first) + index) % usize::from(Self::TEMPLATES);
                pattern::page(SERIES, number)
            }
            Self::LastBit(number) => {
                let mut page = template(number);
                page[PAGE_SIZE - 1] ^= 1;
                page
            }
            Self::Unique(series) => pattern::page(SERIES + 1 + u64::from(series), index),
        }
    }

    /// The first `count` pages.
    pub fn pages(self, count: usize) -> Vec<u8> {
        (0..count).flat_map(|index| self.page(index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_repeats_after_all_templates() {
        let series = Content::Series(3);
        assert_eq!(series.page(1), Content::Same(0).page(7));
        assert_eq!(series.page(0), series.page(Content::TEMPLATES.into()));
    }

    #[test]
    fn the_last_bit_alone_differs() {
        let (left, right) = (Content::Same(2).page(0), Content::LastBit(2).page(0));
        assert_eq!(left[..PAGE_SIZE - 1], right[..PAGE_SIZE - 1]);
        assert_ne!(left, right);
    }
}
