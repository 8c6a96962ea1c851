// SPDX-License-Identifier: GPL-2.0

//! Comparing the contents of pages as they are: nothing is locked, and they may be written.

#![deny(unsafe_code)]

use crate::{
    containers::rbtree::Verdict,
    mm::{
        ksm_page::share::KsmPage,
        page::Page, //
    }, //
};
use core::cmp::Ordering;

/// How contents are compared before a merge is attempted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Pages with equal samples, four lines of each, count as equal; the merge itself compares the
    /// whole pages. If the samples differ, the whole pages are compared at once.
    Sample,
    Whole,
}

/// Where `page` stands, seen from a page with the same checksum; has the CPU fetch `next` meanwhile.
pub(crate) fn verdict(page: &Page, other: &Page, next: &Page) -> Verdict {
    match page.compare(other, next) {
        Ordering::Less => Verdict::Before,
        Ordering::Equal => Verdict::Match,
        Ordering::Greater => Verdict::After,
    }
}

/// As [`verdict`], seen from a KSM page.
pub(crate) fn ksm_verdict(page: &Page, other: &KsmPage, next: &Page, how: Compare) -> Verdict {
    // Without a content that could be compared it has a place in the tree still.
    match page.is_poisoned() || other.page().is_poisoned() {
        true => Verdict::Before,
        false if how == Compare::Sample && page.sample_equals(other.page()) => Verdict::Match,
        false => verdict(page, other.page(), next),
    }
}
