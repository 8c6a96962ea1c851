// SPDX-License-Identifier: GPL-2.0

//! The files in `/sys/kernel/mm/ksm`.
//!
//! Each has one decimal number and a newline, and takes one, with or without the newline.

#![deny(unsafe_code)]

use crate::{
    control::{
        Ksm,
        Run, //
    },
    kobject::{
        Directory,
        File,
        Output, //
    }, //
};
use core::fmt::Write;
use kernel::{
    fmt,
    prelude::*,
    sync::Arc, //
};

/// Makes the directory and its files.
pub(crate) fn register(ksm: Arc<Ksm>) -> Result<Directory<Ksm>> {
    Directory::new(c"ksm", FILES, ksm)
}

static FILES: &[File<Ksm>] = &[
    File {
        name: c"run",
        show: |ksm, out| line(out, ksm.run()),
        store: Some(|ksm, text| ksm.set_run(Run::try_from(parse_or_einval(text)?)?)),
    },
    File {
        name: c"pages_to_scan",
        show: |ksm, out| line(out, ksm.tunables.pages_to_scan.get()),
        store: Some(|ksm, text| {
            ksm.tunables.pages_to_scan.set(parse_or_einval(text)?);
            Ok(())
        }),
    },
    File {
        name: c"sleep_millisecs",
        show: |ksm, out| line(out, ksm.tunables.sleep_millisecs.get()),
        store: Some(|ksm, text| {
            ksm.set_sleep_millisecs(parse_or_einval(text)?);
            Ok(())
        }),
    },
    File {
        name: c"max_page_sharing",
        show: |ksm, out| line(out, ksm.tunables.max_page_sharing.get()),
        store: Some(|ksm, text| ksm.set_max_page_sharing(parse_sharing(text)?)),
    },
    File {
        name: c"pages_scanned",
        show: |ksm, out| line(out, ksm.stats.pages_scanned.get()),
        store: None,
    },
    File {
        name: c"pages_shared",
        show: |ksm, out| line(out, ksm.stats.pages_shared.get()),
        store: None,
    },
    File {
        name: c"pages_sharing",
        show: |ksm, out| line(out, ksm.stats.pages_sharing.get()),
        store: None,
    },
    File {
        name: c"pages_unshared",
        show: |ksm, out| line(out, ksm.stats.pages_unshared.get()),
        store: None,
    },
    File {
        name: c"pages_volatile",
        show: |ksm, out| line(out, ksm.stats.pages_volatile()),
        store: None,
    },
    File {
        name: c"full_scans",
        show: |ksm, out| line(out, ksm.stats.full_scans.get()),
        store: None,
    },
    File {
        name: c"general_profit",
        show: |ksm, out| line(out, ksm.general_profit()),
        store: None,
    },
];

fn line(out: &mut Output<'_>, value: impl fmt::Display) -> fmt::Result {
    out.write_fmt(fmt!("{value}\n"))
}

/// A written number.
///
/// # Errors
///
/// `EINVAL` if it is not one, `ERANGE` if it is too large.
fn parse(text: &[u8]) -> Result<u32> {
    // What is written may end with a newline, or be longer than the string it holds.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    if digits.is_empty() {
        return Err(EINVAL);
    }
    digits.iter().try_fold(0u32, |number, digit| {
        if !digit.is_ascii_digit() {
            return Err(EINVAL);
        }
        number
            .checked_mul(10)
            .and_then(|number| number.checked_add(u32::from(digit - b'0')))
            .ok_or(ERANGE)
    })
}

/// As [`parse`], for the files whose one error is `EINVAL`.
fn parse_or_einval(text: &[u8]) -> Result<u32> {
    parse(text).map_err(|_| EINVAL)
}

/// A KSM page has two mappings from the start, and their number is a signed one for user space.
fn parse_sharing(text: &[u8]) -> Result<u32> {
    match parse(text)? {
        0..2 => Err(EINVAL),
        limit if i32::try_from(limit).is_err() => Err(ERANGE),
        limit => Ok(limit),
    }
}

#[kernel::macros::kunit_tests(ksm_rs_sysfs)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (text, number) in [
            (&b"0"[..], 0),
            (b"1\n", 1),
            (b"+7", 7),
            (b"007\n", 7),
            (b"4294967295", u32::MAX),
            (b"12\0junk", 12),
        ] {
            assert!(parse(text) == Ok(number));
        }
    }

    #[test]
    fn no_numbers() {
        for text in [
            &b""[..],
            b"\n",
            b"-1",
            b"1 2",
            b"0x10",
            b"1\n\n",
            b" 1",
            b"+",
            b"1.0",
            b"\xff",
        ] {
            assert!(parse(text) == Err(EINVAL));
        }
        assert!(parse(b"4294967296") == Err(ERANGE));
        assert!(parse_or_einval(b"4294967296") == Err(EINVAL));
    }

    #[test]
    fn limits_of_sharing() {
        assert!(parse_sharing(b"1") == Err(EINVAL));
        assert!(parse_sharing(b"2") == Ok(2));
        assert!(parse_sharing(b"2147483647") == Ok(i32::MAX as u32));
        assert!(parse_sharing(b"2147483648") == Err(ERANGE));
    }
}
