// SPDX-License-Identifier: GPL-2.0

//! Why pages are not merged, as only the kernel knows: the file `not_merged` that `ksm_rs` has in
//! debugfs.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Read, Write},
    path::Path,
};

use anyhow::{Context, Result};
use rustix::fs::{flock, FlockOperation};
use serde::{Deserialize, Serialize};

const FILE: &str = "/sys/kernel/debug/ksm_rs/not_merged";

/// Numbers of pages that the scan has met, and not merged; each page is in one of them.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasons {
    /// They have not changed, and have no equal.
    pub no_equal: u64,
    /// They have had no equal for long: the smart scan passes over them now and then.
    pub passed_over: u64,
    /// They have an equal, but one of both is in use, or their huge page is not worth a split.
    pub has_equal: u64,
    /// They are new, or differ from scan to scan.
    pub changing: u64,
}

impl Reasons {
    /// How many pages have a reason.
    pub fn sum(&self) -> u64 {
        self.no_equal + self.passed_over + self.has_equal + self.changing
    }
}

/// What the kernel says of a process; `None` if this KSM does not tell, or has not met the process.
///
/// # Errors
///
/// The file is there, and cannot be used.
pub fn of(pid: i32) -> Result<Option<Reasons>> {
    ask(Path::new(FILE), pid).with_context(|| format!("cannot use {FILE}"))
}

fn ask(path: &Path, pid: i32) -> Result<Option<Reasons>> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // Until the file is closed, nobody else asks.
    flock(&file, FlockOperation::LockExclusive)?;
    // In one call.
    file.write_all(pid.to_string().as_bytes())?;
    let mut answer = String::new();
    File::open(path)?.read_to_string(&mut answer)?;
    parse(&answer)
}

/// Reads lines of a name and a number.
fn parse(answer: &str) -> Result<Option<Reasons>> {
    if answer.is_empty() {
        return Ok(None);
    }
    let pairs = answer.lines().filter_map(|line| line.split_once(' '));
    let fields = pairs
        .map(|(name, number)| Ok((name.to_owned(), number.parse::<u64>()?.into())))
        .collect::<Result<serde_json::Map<_, _>>>()?;
    Ok(Some(serde_json::from_value(fields.into())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_all_reasons() {
        let answer = "no_equal 5\npassed_over 4\nhas_equal 3\nchanging 2\n";
        let expected = Reasons {
            no_equal: 5,
            passed_over: 4,
            has_equal: 3,
            changing: 2,
        };
        assert_eq!(parse(answer).unwrap(), Some(expected));
        assert_eq!(parse("").unwrap(), None);
        assert!(parse("no_equal 5\n").is_err());
        assert!(parse("no_equal many\n").is_err());
    }

    #[test]
    fn without_the_file_nothing_is_told() {
        assert_eq!(ask(Path::new("/nowhere/not_merged"), 1).unwrap(), None);
    }
}
