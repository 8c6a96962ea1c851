// SPDX-License-Identifier: GPL-2.0

//! Whose frame a page has that was merged.

use serde::Serialize;

/// How often it was whose.
#[derive(Default, Serialize)]
pub struct Frames {
    pub not_merged: u64,
    pub attackers: u64,
    pub victims: u64,
    pub nobodys: u64,
}

/// The frames of a victim, and of the attacker that holds the same page.
#[derive(Clone, Copy)]
pub struct Pair {
    pub victim: u64,
    pub attacker: u64,
}

impl Frames {
    /// Notes what a scan has made of the frames.
    pub fn note(&mut self, before: Pair, after: Pair) {
        let count = if after.victim != after.attacker {
            &mut self.not_merged
        } else if after.victim == before.attacker {
            &mut self.attackers
        } else if after.victim == before.victim {
            &mut self.victims
        } else {
            &mut self.nobodys
        };
        *count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_told_apart() {
        let before = Pair {
            victim: 1,
            attacker: 2,
        };
        let mut frames = Frames::default();
        for (victim, attacker) in [(1, 2), (2, 2), (1, 1), (3, 3), (3, 4)] {
            frames.note(before, Pair { victim, attacker });
        }
        let counts = (frames.not_merged, frames.attackers, frames.victims);
        assert_eq!((counts, frames.nobodys), ((2, 1, 1), 1));
    }
}
