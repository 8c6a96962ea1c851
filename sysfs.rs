// SPDX-License-Identifier: GPL-2.0

//! The files in `/sys/kernel/mm/ksm`, which are those of `mm/ksm.c`, and the module's own in
//! `/sys/kernel/mm/ksm_rs`.
//!
//! Each has one decimal number and a newline (`advisor_mode` has words), and takes one, with or
//! without the newline.

#![deny(unsafe_code)]

use crate::{
    following::Following,
    kernel_api::kobject::{
        Directory,
        File,
        Output, //
    },
    ksmd::{
        Ksm,
        Run, //
    },
    mm::{
        address_space::zero_pages,
        domain::DomainRule,
        page_table::PAGES_OF_HUGE_PAGE, //
    },
    policy::tunables::U32_MAX, //
};
use core::fmt::Write;
use kernel::{
    fmt,
    prelude::*,
    str::kstrtobool_bytes,
    sync::Arc, //
};

/// Both directories; dropping them removes them.
pub(crate) struct Directories<F: Following> {
    _common: Directory<Ksm<F>>,
    _own: Directory<Ksm<F>>,
}

/// Makes the directories and their files.
pub(crate) fn register<F: Following>(ksm: Arc<Ksm<F>>) -> Result<Directories<F>> {
    Ok(Directories {
        _common: Directory::new(c"ksm", files(), ksm.clone())?,
        _own: Directory::new(c"ksm_rs", own_files(), ksm)?,
    })
}

const NO_MODE: &str = "[none] scan-time\n";
const SCAN_TIME_MODE: &str = "none [scan-time]\n";

/// A file that shows a number.
macro_rules! counter {
    ($name:literal, |$ksm:pat_param| $value:expr) => {
        File {
            name: $name,
            show: |$ksm, out| line(out, $value),
            store: None,
        }
    };
}

/// A file that shows a number, and takes what `$parse` makes of a written text.
macro_rules! tunable {
    ($name:literal, $parse:expr, $($field:ident).+) => {
        File {
            name: $name,
            show: |ksm, out| line(out, ksm.shared.tunables.$($field).+.get()),
            store: Some(|ksm, text| {
                ksm.shared.tunables.$($field).+.set($parse(text)?);
                Ok(())
            }),
        }
    };
}

fn files<F: Following>() -> &'static [File<Ksm<F>>] {
    const {
        &[
            File {
                name: c"run",
                show: |ksm, out| line(out, ksm.run()),
                store: Some(|ksm, text| ksm.set_run(Run::try_from(parse_u32(text)?)?)),
            },
            File {
                name: c"pages_to_scan",
                show: |ksm, out| line(out, ksm.shared.tunables.pages_to_scan.get()),
                store: Some(|ksm, text| ksm.set_pages_to_scan(parse_u32(text)?)),
            },
            File {
                name: c"sleep_millisecs",
                show: |ksm, out| line(out, ksm.shared.tunables.sleep_millisecs.get()),
                store: Some(|ksm, text| {
                    ksm.set_sleep_millisecs(parse_u32(text)?);
                    Ok(())
                }),
            },
            #[cfg(CONFIG_NUMA)]
            File {
                name: c"merge_across_nodes",
                show: |ksm, out| line(out, ksm.shared.tunables.merge_across_nodes.get()),
                store: Some(|ksm, text| match parse(text, usize::MAX)? {
                    knob @ 0..2 => ksm.set_merge_across_nodes(knob == 1),
                    _ => Err(EINVAL),
                }),
            },
            File {
                name: c"max_page_sharing",
                show: |ksm, out| line(out, ksm.shared.tunables.max_page_sharing.get()),
                store: Some(|ksm, text| ksm.set_max_page_sharing(parse_sharing(text)?)),
            },
            File {
                name: c"advisor_mode",
                show: |ksm, out| {
                    let enabled = ksm.shared.tunables.advisor.enabled.is_set();
                    out.write_str(if enabled { SCAN_TIME_MODE } else { NO_MODE })
                },
                store: Some(|ksm, text| {
                    ksm.set_advisor(match line_of(text) {
                        b"scan-time" => true,
                        b"none" => false,
                        _ => return Err(EINVAL),
                    });
                    Ok(())
                }),
            },
            tunable!(c"use_zero_pages", parse_bool, use_zero_pages),
            tunable!(
                c"stable_node_chains_prune_millisecs",
                parse_u32,
                chains_prune_millisecs
            ),
            tunable!(c"smart_scan", parse_bool, smart_scan),
            tunable!(c"advisor_max_cpu", parse_max_cpu, advisor.max_cpu),
            tunable!(
                c"advisor_min_pages_to_scan",
                parse_word,
                advisor.min_pages_to_scan
            ),
            tunable!(
                c"advisor_max_pages_to_scan",
                parse_word,
                advisor.max_pages_to_scan
            ),
            tunable!(
                c"advisor_target_scan_time",
                parse_seconds,
                advisor.target_scan_time
            ),
            counter!(c"pages_scanned", |ksm| ksm.shared.stats.pages_scanned.get()),
            counter!(c"pages_shared", |ksm| ksm.shared.counters.pages_shared()),
            counter!(c"pages_sharing", |ksm| ksm.shared.counters.pages_sharing()),
            counter!(c"pages_unshared", |ksm| ksm
                .shared
                .counters
                .pages_unshared()),
            counter!(c"pages_volatile", |ksm| ksm
                .shared
                .counters
                .pages_volatile()),
            counter!(c"pages_skipped", |ksm| ksm.shared.stats.pages_skipped.get()),
            counter!(c"full_scans", |ksm| ksm.shared.stats.full_scans.get()),
            counter!(c"stable_node_chains", |ksm| ksm.shared.counters.chains()),
            counter!(c"stable_node_dups", |ksm| ksm.shared.counters.dups()),
            counter!(c"ksm_zero_pages", |_| zero_pages()),
            counter!(c"general_profit", |ksm| ksm.general_profit()),
        ]
    }
}

/// The words for the rules, in the order of their numbers.
const DOMAIN_RULES: [(&str, DomainRule); 3] = [
    ("shared", DomainRule::Shared),
    ("marked", DomainRule::Marked),
    ("private", DomainRule::Private),
];

fn own_files<F: Following>() -> &'static [File<Ksm<F>>] {
    const {
        &[
            File {
                name: c"domains",
                show: |ksm, out| line(out, DOMAIN_RULES[ksm.shared.tunables.domains.get()].0),
                store: Some(|ksm, text| ksm.set_domain_rule(parse_domain_rule(text)?)),
            },
            tunable!(c"fresh_frames", parse_bool, fresh_frames),
            tunable!(c"huge_page_min_equal", parse_min_equal, huge_page_min_equal),
            counter!(c"in_sync", |_| usize::from(F::IS_IN_SYNC)),
            tunable!(c"only_zero_pages", parse_bool, only_zero_pages),
            counter!(c"pages_untouched", |ksm| ksm
                .shared
                .stats
                .pages_untouched
                .get()),
            counter!(c"pages_untracked", |ksm| ksm
                .shared
                .stats
                .pages_untracked
                .get()),
            tunable!(c"skip_untouched", parse_bool, skip_untouched),
        ]
    }
}

fn line(out: &mut Output<'_>, value: impl fmt::Display) -> fmt::Result {
    out.write_fmt(fmt!("{value}\n"))
}

/// The written text: up to a NUL, and without the newline that it may end with.
fn line_of(text: &[u8]) -> &[u8] {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    text.strip_suffix(b"\n").unwrap_or(text)
}

/// A written number.
///
/// # Errors
///
/// `EINVAL` if it is not one, `ERANGE` if it is above `max`.
fn parse(text: &[u8], max: usize) -> Result<usize> {
    let line = line_of(text);
    parse_digits(line.strip_prefix(b"+").unwrap_or(line), max)
}

/// As [`parse`], for a number without a sign.
///
/// Digits that are too many for a word are `ERANGE` even if other text follows; any other
/// number is looked at only if none does.
fn parse_digits(line: &[u8], max: usize) -> Result<usize> {
    let end = line.iter().position(|byte| !byte.is_ascii_digit());
    let (digits, rest) = line.split_at(end.unwrap_or(line.len()));
    let number = digits.iter().try_fold(0usize, |number, digit| {
        number
            .checked_mul(10)?
            .checked_add(usize::from(digit - b'0'))
    });
    match number {
        None => Err(ERANGE),
        Some(_) if digits.is_empty() || !rest.is_empty() => Err(EINVAL),
        Some(number) if number > max => Err(ERANGE),
        Some(number) => Ok(number),
    }
}

/// A word, for the files whose one error is `EINVAL`.
fn parse_word(text: &[u8]) -> Result<usize> {
    parse(text, usize::MAX).map_err(|_| EINVAL)
}

/// As [`parse_word`], for 32 bits.
fn parse_u32(text: &[u8]) -> Result<usize> {
    parse(text, U32_MAX).map_err(|_| EINVAL)
}

/// Percent: a word is taken, and 32 bits of it kept.
fn parse_max_cpu(text: &[u8]) -> Result<usize> {
    Ok(parse_word(text)? & U32_MAX)
}

/// A time that there is something to be divided by.
fn parse_seconds(text: &[u8]) -> Result<usize> {
    match parse_word(text)? {
        0 => Err(EINVAL),
        seconds => Ok(seconds),
    }
}

/// A number of pages of a huge page.
fn parse_min_equal(text: &[u8]) -> Result<usize> {
    match parse(text, PAGES_OF_HUGE_PAGE)? {
        0 => Err(EINVAL),
        pages => Ok(pages),
    }
}

/// A written word for a rule.
fn parse_domain_rule(text: &[u8]) -> Result<DomainRule> {
    let word = line_of(text);
    let rule = DOMAIN_RULES.iter().find(|rule| rule.0.as_bytes() == word);
    rule.map(|rule| rule.1).ok_or(EINVAL)
}

/// A written switch: what begins with 1, y, t, e or "on", or with 0, n, f, d or "of".
fn parse_bool(text: &[u8]) -> Result<usize> {
    kstrtobool_bytes(text).map(usize::from)
}

/// A KSM page has two mappings from the start, and their number is a signed one for user space.
fn parse_sharing(text: &[u8]) -> Result<usize> {
    if let Some(digits) = text.strip_prefix(b"-") {
        parse_digits(line_of(digits), 1 << 31)?;
        return Err(EINVAL);
    }
    match parse(text, i32::MAX as usize)? {
        0..2 => Err(EINVAL),
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
            (b"4294967295", U32_MAX),
            (b"12\0junk", 12),
        ] {
            assert!(parse(text, U32_MAX) == Ok(number));
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
            assert!(parse(text, U32_MAX) == Err(EINVAL));
        }
        assert!(parse(b"4294967296", U32_MAX) == Err(ERANGE));
        assert!(parse(b"4294967296x", U32_MAX) == Err(EINVAL));
        assert!(parse(b"18446744073709551616", usize::MAX) == Err(ERANGE));
        assert!(parse(b"18446744073709551616x", usize::MAX) == Err(ERANGE));
        assert!(parse_u32(b"4294967296") == Err(EINVAL));
        assert!(parse_seconds(b"0") == Err(EINVAL));
    }

    #[test]
    fn limits_of_equal_pages() {
        assert!(parse_min_equal(b"0") == Err(EINVAL));
        assert!(parse_min_equal(b"1\n") == Ok(1));
        assert!(parse_min_equal(b"512") == Ok(PAGES_OF_HUGE_PAGE));
        assert!(parse_min_equal(b"513") == Err(ERANGE));
    }

    #[test]
    fn limits_of_sharing() {
        assert!(parse_sharing(b"1") == Err(EINVAL));
        assert!(parse_sharing(b"-5\n") == Err(EINVAL));
        assert!(parse_sharing(b"-99999999999") == Err(ERANGE));
        assert!(parse_sharing(b"-+99999999999") == Err(EINVAL));
        assert!(parse_sharing(b"2") == Ok(2));
        assert!(parse_sharing(b"2147483647") == Ok(i32::MAX as usize));
        assert!(parse_sharing(b"2147483648") == Err(ERANGE));
    }
}
