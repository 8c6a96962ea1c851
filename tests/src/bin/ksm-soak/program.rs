// SPDX-License-Identifier: GPL-2.0

//! Running another of these programs, and what it says of itself.

use std::process::Command;

use anyhow::{ensure, Context, Result};

/// By these words a program says that it has looked at every byte.
const VERDICT: &str = "bytes lost: 0";

/// Runs a program to its end and returns what it has printed.
pub fn output(program: &str, arguments: &[String]) -> Result<String> {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let command = format!("{program} {}", arguments.join(" "));
    ensure!(
        done.status.success() && text.contains(VERDICT),
        "{command}: {}\n{text}{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(text)
}

/// The number that stands before `what` in a text.
pub fn count(text: &str, what: &str) -> Result<u64> {
    text.lines()
        .rev()
        .find_map(|line| number_before(line, what))
        .with_context(|| format!("no number of {what} in:\n{text}"))
}

fn number_before(line: &str, what: &str) -> Option<u64> {
    let (before, _) = line.split_once(&format!(" {what}"))?;
    before.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "  - seed 7\n  - 120 random steps, bytes lost: 0\n\
                          3 sequences, 44 operations, at most 5 pages sharing, bytes lost: 0\n";

    #[test]
    fn numbers_are_found_before_their_names() {
        assert_eq!(count(OUTPUT, "random steps").unwrap(), 120);
        assert_eq!(count(OUTPUT, "sequences").unwrap(), 3);
        assert_eq!(count(OUTPUT, "operations").unwrap(), 44);
        assert!(count(OUTPUT, "rounds").is_err());
    }

    #[test]
    fn a_program_that_does_not_say_so_has_lost_bytes() {
        assert!(output("true", &[]).is_err());
        let verdict = ["-c".into(), format!("echo {VERDICT}")];
        assert!(output("sh", &verdict).is_ok());
        let failed = ["-c".into(), format!("echo {VERDICT}; exit 1")];
        assert!(output("sh", &failed).is_err());
    }
}
