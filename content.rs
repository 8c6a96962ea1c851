// SPDX-License-Identifier: GPL-2.0

//! The content of a page, as the lines that a CPU fetches at a time.
//!
//! Somebody else may be writing it, so its words are read by atomic loads, of which each sees
//! something that was there.

#![deny(unsafe_code)]

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

/// Where `one` stands, seen from `other`, in an order that means nothing to anybody else.
pub(crate) fn compare(one: &Content, other: &Content) -> Ordering {
    if is_equal(one, other) {
        return Ordering::Equal;
    }
    words(one).cmp(words(other))
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(content: &Content) -> bool {
    is_equal(content, &ZEROS)
}

/// Reads all of both: who asks has reason to expect the answer yes, as checksums are equal. It takes
/// no decision on the way, and has a result for each word of a line, so that no load has to wait for
/// another.
fn is_equal(one: &Content, other: &Content) -> bool {
    let differences = one
        .iter()
        .zip(other)
        .fold([0; WORDS_IN_LINE], |sum, (one, other)| {
            from_fn(|word| sum[word] | one[word].load(Relaxed) ^ other[word].load(Relaxed))
        });
    differences
        .iter()
        .fold(0, |sum, difference| sum | difference)
        == 0
}

fn words(content: &Content) -> impl Iterator<Item = u64> + '_ {
    let words = content.as_flattened().iter();
    words.map(|word| word.load(Relaxed))
}
