// SPDX-License-Identifier: GPL-2.0

//! Pairs of processes that have something in common.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use serde::Serialize;

use crate::processes::Named;

/// A page that more processes have in common is not counted for each pair of them: there would be too many.
const MOST: usize = 64;

/// Two processes.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// One of them.
    pub one: i32,
    /// The other one.
    pub other: i32,
    /// The pages of each that have an equal in the other one; the smaller number of both.
    pub common: u64,
}

/// Counts what pairs of processes have in common.
#[derive(Default)]
pub struct Pairs(HashMap<(usize, usize), u64>);

impl Pairs {
    /// Adds equal pages: the place of the process of each.
    pub fn add(&mut self, processes: impl Iterator<Item = usize>) {
        let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
        for process in processes {
            *counts.entry(process).or_default() += 1;
            if counts.len() > MOST {
                return;
            }
        }
        let counts: Vec<(usize, u64)> = counts.into_iter().collect();
        for (index, (one, in_one)) in counts.iter().enumerate() {
            for (other, in_other) in &counts[index + 1..] {
                *self.0.entry((*one, *other)).or_default() += in_one.min(in_other);
            }
        }
    }

    /// The pairs of these processes, those that have most in common first.
    pub fn sorted(&self, processes: &[Named]) -> Vec<Pair> {
        let pairs = self.0.iter().map(|((one, other), common)| Pair {
            one: processes[*one].pid,
            other: processes[*other].pid,
            common: *common,
        });
        let mut pairs: Vec<Pair> = pairs.collect();
        pairs.sort_by_key(|pair| (Reverse(pair.common), pair.one, pair.other));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes(count: usize) -> Vec<Named> {
        let named = (0..count).map(|place| Named {
            pid: 100 + place as i32,
            name: String::new(),
            group: None,
            domain: None,
        });
        named.collect()
    }

    #[test]
    fn the_smaller_number_counts() {
        let mut pairs = Pairs::default();
        pairs.add([0, 1, 1, 1, 0].into_iter());
        pairs.add([1, 2].into_iter());
        pairs.add([2].into_iter());
        let found: Vec<_> = pairs
            .sorted(&processes(3))
            .iter()
            .map(|pair| (pair.one, pair.other, pair.common))
            .collect();
        assert_eq!(found, [(100, 101, 2), (101, 102, 1)]);
    }

    #[test]
    fn what_very_many_have_makes_no_pairs() {
        let mut pairs = Pairs::default();
        pairs.add(0..MOST + 1);
        assert!(pairs.sorted(&processes(MOST + 1)).is_empty());
        pairs.add(0..MOST);
        assert_eq!(pairs.sorted(&processes(MOST)).len(), MOST * (MOST - 1) / 2);
    }
}
