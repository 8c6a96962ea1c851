// SPDX-License-Identifier: GPL-2.0

//! The content of a page, as the lines that a CPU fetches at a time.
//!
//! Somebody else may be writing it, so its words are read by atomic loads, of which each sees
//! something that was there.

#![deny(unsafe_code)]

use core::{
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
    one.iter()
        .zip(other)
        .find(|(one, other)| difference(one, other) != 0)
        .map_or(Ordering::Equal, |(one, other)| {
            let one = one.iter().map(|word| word.load(Relaxed));
            one.cmp(other.iter().map(|word| word.load(Relaxed)))
        })
}

/// Whether there is nothing but zeros.
pub(crate) fn is_zero(content: &Content) -> bool {
    content.iter().all(|line| difference(line, &ZEROS[0]) == 0)
}

/// Zero if two lines are equal. It takes no decision in between, which makes it fast.
#[inline]
fn difference(one: &Line, other: &Line) -> u64 {
    one.iter().zip(other).fold(0, |sum, (one, other)| {
        sum | one.load(Relaxed) ^ other.load(Relaxed)
    })
}
