// SPDX-License-Identifier: GPL-2.0

//! The content of a page, as the lines that a CPU fetches at a time.
//!
//! Somebody else may be writing it, so its words are read by atomic loads, of which each sees
//! something that was there.

#![deny(unsafe_code)]

use crate::mm::prefetch::prefetch_for_later;
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
    if is_equal(one, other, one) {
        return Ordering::Equal;
    }
    words(one).cmp(words(other))
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(content: &Content) -> bool {
    is_equal(content, &ZEROS, content)
}

/// Whether two contents are equal; has the CPU fetch `later` meanwhile.
///
/// Reads all of both: who asks has reason to expect the answer yes, as checksums are equal. It takes
/// no decision on the way, and has a result for each word of a line, so that no load has to wait for
/// another.
pub(crate) fn is_equal(one: &Content, other: &Content, later: &Content) -> bool {
    let mut differences = [0; WORDS_IN_LINE];
    for ((one, other), ahead) in one.iter().zip(other).zip(later) {
        prefetch_for_later(ahead);
        differences =
            from_fn(|word| differences[word] | one[word].load(Relaxed) ^ other[word].load(Relaxed));
    }
    differences.iter().fold(0, |sum, word| sum | word) == 0
}

fn words(content: &Content) -> impl Iterator<Item = u64> + '_ {
    let words = content.as_flattened().iter();
    words.map(|word| word.load(Relaxed))
}
