// SPDX-License-Identifier: GPL-2.0

//! Only equal contents merge, however small the difference is and wherever it lies.

use anyhow::Result;
use ksm_tests::{
    ksm::{Counters, Scanner},
    pattern,
    region::Region,
    PAGE_SIZE,
};

use crate::{
    case::{Case, Options},
    helpers::step,
};

pub const CASES: &[Case] = &[
    Case::new(
        "contents-one-bit",
        "pages that differ in a single bit, anywhere, do not merge",
        one_bit,
    ),
    Case::new(
        "contents-ends",
        "pages that differ only in their first or last bytes do not merge",
        ends,
    ),
    Case::new(
        "contents-zero",
        "pages of zeros merge like any others",
        zero,
    ),
    Case::new(
        "contents-constant",
        "pages of one repeated byte merge with their like only",
        constant,
    ),
];

/// Advises two copies of `base` and one of each variant, and expects the copies alone to merge.
fn expect_only_copies_merge(base: &[u8], variants: &[Vec<u8>]) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut content = base.repeat(2);
    content.extend(variants.concat());
    let region = Region::mergeable(&content)?;
    step(format!("two equal pages among {} others", variants.len()));
    scanner.expect(Counters::stable(1, 1, variants.len() as u64))?;
    region.verify(&content)
}

fn one_bit(_: &Options) -> Result<()> {
    let base = pattern::page(1, 0);
    // A prime step touches every place in a word, a cache line and a vector sooner or later.
    let variants: Vec<_> = (0..PAGE_SIZE * 8)
        .step_by(509)
        .chain([PAGE_SIZE * 8 - 1])
        .map(|bit| {
            let mut page = base.to_vec();
            page[bit / 8] ^= 1 << (bit % 8);
            page
        })
        .collect();
    expect_only_copies_merge(&base, &variants)
}

fn ends(_: &Options) -> Result<()> {
    let base = pattern::page(2, 0);
    let places = [
        0..1,
        0..8,
        PAGE_SIZE - 8..PAGE_SIZE,
        PAGE_SIZE - 1..PAGE_SIZE,
    ];
    let variants: Vec<_> = places
        .into_iter()
        .flat_map(|place| {
            (1..=8u8).map(move |change| {
                let mut page = base.to_vec();
                page[place.clone()].iter_mut().for_each(|b| *b ^= change);
                page
            })
        })
        .collect();
    expect_only_copies_merge(&base, &distinct(variants))
}

/// Leaves out what is there already.
fn distinct(mut pages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    pages.sort_unstable();
    pages.dedup();
    pages
}

fn zero(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content = [0; 8 * PAGE_SIZE];
    let region = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(1, 7, 0))?;
    region.verify(&content)
}

fn constant(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    let content: Vec<u8> = (0..=255).flat_map(|byte| [byte; PAGE_SIZE]).collect();
    let left = Region::mergeable(&content)?;
    let right = Region::mergeable(&content)?;
    scanner.expect(Counters::stable(256, 256, 0))?;
    left.verify(&content)?;
    right.verify(&content)
}
