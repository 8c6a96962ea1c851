// SPDX-License-Identifier: GPL-2.0

//! All files of KSM that can be written, and the values that each one takes.

use anyhow::{anyhow, bail, ensure, Result};

/// The name of the file that starts and stops the scanner.
pub const RUN: &str = "run";

/// The name of the file that switches the advisor.
pub const ADVISOR_MODE: &str = "advisor_mode";

/// The mode of an advisor that does nothing.
pub const NO_ADVISOR: &str = "none";

/// The name of the file that the advisor writes.
pub const PAGES_TO_SCAN: &str = "pages_to_scan";

/// A file that can be written.
#[derive(Debug)]
pub struct Tunable {
    /// The name of the file.
    pub name: &'static str,
    /// Whether the kernel takes another value only while no page is merged.
    pub needs_rest: bool,
    takes: Takes,
}

#[derive(Debug)]
enum Takes {
    Numbers(u64, u64),
    Words(&'static [&'static str]),
}

const SWITCH: Takes = Takes::Numbers(0, 1);
const U32: Takes = Takes::Numbers(0, u32::MAX as u64);

const fn tunable(name: &'static str, takes: Takes) -> Tunable {
    Tunable {
        name,
        needs_rest: false,
        takes,
    }
}

const fn at_rest(name: &'static str, takes: Takes) -> Tunable {
    Tunable {
        name,
        needs_rest: true,
        takes,
    }
}

/// In the order in which they are written, but for `run`. The advisor begins with its own settings, and
/// has to be off before the pace can be set.
pub static ALL: &[Tunable] = &[
    tunable("advisor_target_scan_time", Takes::Numbers(1, u64::MAX)),
    tunable("advisor_max_cpu", U32),
    tunable("advisor_min_pages_to_scan", Takes::Numbers(0, u64::MAX)),
    tunable("advisor_max_pages_to_scan", Takes::Numbers(0, u64::MAX)),
    tunable(ADVISOR_MODE, Takes::Words(&[NO_ADVISOR, "scan-time"])),
    tunable(PAGES_TO_SCAN, U32),
    tunable("sleep_millisecs", U32),
    at_rest("merge_across_nodes", SWITCH),
    at_rest("max_page_sharing", Takes::Numbers(2, i32::MAX as u64)),
    tunable("stable_node_chains_prune_millisecs", U32),
    tunable("use_zero_pages", SWITCH),
    tunable("smart_scan", SWITCH),
    tunable("huge_page_min_equal", Takes::Numbers(1, 512)),
    tunable("only_zero_pages", SWITCH),
    tunable("domains", Takes::Words(&["shared", "marked", "private"])),
    tunable("fresh_frames", SWITCH),
    tunable("skip_untouched", SWITCH),
    tunable(RUN, Takes::Numbers(0, 2)),
];

/// The tunable of that name.
pub fn find(name: &str) -> Option<&'static Tunable> {
    ALL.iter().find(|tunable| tunable.name == name)
}

/// The names of all tunables.
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|tunable| tunable.name).collect()
}

impl Tunable {
    /// `value` as the kernel shows it.
    ///
    /// # Errors
    ///
    /// The kernel would refuse the value.
    pub fn checked(&self, value: &str) -> Result<String> {
        let name = self.name;
        match self.takes {
            Takes::Words(words) if words.contains(&value) => Ok(value.to_owned()),
            Takes::Words(words) => bail!("{name} is one of {}, not {value:?}", words.join(", ")),
            Takes::Numbers(least, most) => {
                let number: u64 = value
                    .parse()
                    .map_err(|_| anyhow!("{name} is a number, not {value:?}"))?;
                ensure!(
                    (least..=most).contains(&number),
                    "{name} is a number from {least} to {most}, not {number}"
                );
                Ok(number.to_string())
            }
        }
    }

    /// The value in the text of the file, which may list all words and put one of them in brackets.
    pub fn shown(&self, text: &str) -> String {
        let chosen = text
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'));
        chosen.map_or(text, |(word, _)| word).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_limits() {
        let sharing = find("max_page_sharing").unwrap();
        for (value, taken) in [
            ("1", false),
            ("2", true),
            ("0256", true),
            ("2147483648", false),
            ("-2", false),
        ] {
            assert_eq!(sharing.checked(value).is_ok(), taken, "{value}");
        }
        assert_eq!(sharing.checked("0256").unwrap(), "256");
    }

    #[test]
    fn the_chosen_word_stands_in_brackets() {
        let mode = find(ADVISOR_MODE).unwrap();
        assert_eq!(mode.shown("none [scan-time]"), "scan-time");
        assert_eq!(mode.shown("[none] scan-time"), "none");
        assert_eq!(find(RUN).unwrap().shown("1"), "1");
        assert!(mode.checked("scan").is_err());
    }
}
