// SPDX-License-Identifier: GPL-2.0

//! The domain of a process: KSM merges its pages with those of the same domain alone.

use std::fs;

/// Numbers from here on are of domains that nobody can join.
const PRIVATE: u64 = 1 << 32;

/// The domain of a process; `None` if this kernel has no domains, or only root may know.
pub fn of(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/ksm_domain")).ok()?;
    text.trim().parse().ok()
}

/// For a table.
pub fn text(domain: Option<u64>) -> String {
    match domain {
        None => String::new(),
        Some(number) if number < PRIVATE => number.to_string(),
        Some(number) => format!("private {}", number - PRIVATE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_domains_are_told_from_numbers() {
        assert_eq!(text(None), "");
        assert_eq!(text(Some(u64::from(u32::MAX))), "4294967295");
        assert_eq!(text(Some(PRIVATE + 5)), "private 5");
    }
}
