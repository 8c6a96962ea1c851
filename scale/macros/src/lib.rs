// SPDX-License-Identifier: GPL-2.0

//! Stands in for the macros of the kernel crate.

use proc_macro::TokenStream;

/// Makes a KUnit suite an ordinary module of tests.
#[proc_macro_attribute]
pub fn kunit_tests(_name: TokenStream, suite: TokenStream) -> TokenStream {
    let mut tests: TokenStream = "#[cfg(test)]".parse().expect("an attribute");
    tests.extend(suite);
    tests
}
