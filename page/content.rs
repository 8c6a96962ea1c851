// SPDX-License-Identifier: GPL-2.0

//! The content of a page, as the lines that a CPU fetches at a time.
//!
//! Somebody else may be writing it, so its words are read by atomic loads, of which each sees
//! something that was there.

#![deny(unsafe_code)]

use crate::kernel_api::prefetch::prefetch_for_later;
use core::{
    array::from_fn,
    cmp::Ordering,
    sync::atomic::{
        AtomicU64,
        Ordering::Relaxed, //
    }, //
};
use kernel::page::PAGE_SIZE;

/// Words that a CPU fetches at once.
const WORDS_IN_LINE: usize = 8;

/// Lines in a page.
pub(crate) const LINES: usize = PAGE_SIZE / size_of::<Line>();

pub(crate) type Line = [AtomicU64; WORDS_IN_LINE];

/// See the [module's description](self).
pub(crate) type Content = [Line; LINES];

const ZERO_LINE: Line = [const { AtomicU64::new(0) }; WORDS_IN_LINE];

/// The content of a page of zeros.
pub(crate) static ZEROS: Content = [const { ZERO_LINE }; LINES];

/// Where `one` stands, seen from `other`, in an arbitrary but consistent order; has the CPU fetch
/// `later` meanwhile.
pub(crate) fn compare(one: &Content, other: &Content, later: &Content) -> Ordering {
    if is_equal(one, other, later) {
        return Ordering::Equal;
    }
    words(one).cmp(words(other))
}

/// Whether samples of two contents are equal: the first and the last line, and two lines between.
///
/// Costs a tenth of [`is_equal`]. A rewritten page does not look equal any more; one that differs in a
/// few words mostly does.
pub(crate) fn sample_equals(one: &Content, other: &Content) -> bool {
    const LINES_TO_NEXT: usize = (LINES - 1) / 3;
    let [one, other] = [one, other].map(|content| content.iter().step_by(LINES_TO_NEXT));
    let differences = one.zip(other).fold([0; WORDS_IN_LINE], add_differences);
    is_none(differences)
}

/// Whether the sample of a content, the lines that [`sample_equals`] compares, holds nothing but zeros.
pub(crate) fn sample_is_zero(content: &Content) -> bool {
    sample_equals(content, &ZEROS)
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(content: &Content) -> bool {
    let mut bits = [0; WORDS_IN_LINE];
    for line in content {
        bits = from_fn(|word| bits[word] | line[word].load(Relaxed));
    }
    is_none(bits)
}

/// As [`is_zero`], for an unknown content: leaves it at the first line with another bit.
pub(crate) fn is_zero_at_each_line(content: &Content) -> bool {
    let is_zero = |line: &Line| is_none(from_fn(|word| line[word].load(Relaxed)));
    content.iter().all(is_zero)
}

/// Whether two contents are equal; has the CPU fetch `later` meanwhile.
///
/// Reads all of both, and takes no decision on the way: callers expect the answer yes, as checksums are
/// equal.
pub(crate) fn is_equal(one: &Content, other: &Content, later: &Content) -> bool {
    let mut differences = [0; WORDS_IN_LINE];
    for ((one, other), ahead) in one.iter().zip(other).zip(later) {
        prefetch_for_later(ahead);
        differences = add_differences(differences, (one, other));
    }
    is_none(differences)
}

/// Adds the bits in which two lines differ to the `differences` found before.
///
/// There is a result for each word of a line, so that no load has to wait for another.
#[inline(always)]
fn add_differences(
    differences: [u64; WORDS_IN_LINE],
    pair: (&Line, &Line),
) -> [u64; WORDS_IN_LINE] {
    let (one, other) = pair;
    from_fn(|word| differences[word] | one[word].load(Relaxed) ^ other[word].load(Relaxed))
}

/// Whether no bit is set. (To compare with an array of zeros would be done in memory.)
#[inline(always)]
fn is_none(bits: [u64; WORDS_IN_LINE]) -> bool {
    bits.iter().fold(0, |sum, word| sum | word) == 0
}

fn words(content: &Content) -> impl Iterator<Item = u64> + '_ {
    let words = content.as_flattened().iter();
    words.map(|word| word.load(Relaxed))
}
