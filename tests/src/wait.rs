// SPDX-License-Identifier: GPL-2.0

//! Waiting for a condition, never for an amount of time.
//!
//! An emulated CPU may be a hundred times slower than a real one, so the limits here only catch
//! a kernel that makes no progress at all.

use std::time::{Duration, Instant};

use anyhow::{bail, Result};

/// How long something may make no progress before we call it stuck.
pub const STALL_LIMIT: Duration = Duration::from_secs(120);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Polls until `condition` gives a value; fails after [`STALL_LIMIT`].
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() > STALL_LIMIT {
            bail!("waited {} s in vain for {what}", STALL_LIMIT.as_secs());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_returns_the_value() {
        let mut calls = 0;
        let got = until("three calls", || {
            calls += 1;
            Ok((calls == 3).then_some(calls))
        });
        assert_eq!(got.unwrap(), 3);
    }

    #[test]
    fn until_passes_errors_on() {
        let got: Result<()> = until("an error", || bail!("no"));
        assert_eq!(got.unwrap_err().to_string(), "no");
    }
}
