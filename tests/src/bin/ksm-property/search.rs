// SPDX-License-Identifier: GPL-2.0

//! Random sequences from a seed, and the smallest part of one that still fails.

use std::cell::{Cell, RefCell};

use anyhow::Result;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::operation::{self, Operation};

/// A part of a failed sequence passes only if it does so as often as this: what fails may depend
/// on where ksmd was.
const TRIES: u32 = 2;

/// Time limits the search for a smaller sequence, not a number. (The largest one means "few".)
const MANY: u32 = u32::MAX - 1;

/// Where random sequences come from.
pub struct Generator {
    pub seed: u64,
    /// The largest number of operations in a sequence.
    pub longest: usize,
    /// How long to look for a smaller sequence.
    pub shrink_seconds: u32,
}

/// A sequence that fails.
pub struct Failure {
    pub sequence: Vec<Operation>,
    pub reason: String,
}

impl Generator {
    /// The sequence number `index`, which depends on that and on the seed alone.
    fn runner(&self, index: u64) -> TestRunner {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&index.to_le_bytes());
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: MANY,
            max_shrink_time: self.shrink_seconds * 1000,
            ..Config::default()
        };
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
    }

    /// Runs sequence `index`; if it fails, looks for a part of it that fails as well.
    pub fn try_sequence(
        &self,
        index: u64,
        run: impl FnMut(&[Operation]) -> Result<()>,
    ) -> Result<(), Failure> {
        let run = RefCell::new(run);
        let tries = Cell::new(1);
        let test = |sequence: Vec<Operation>| {
            let once = |_| (run.borrow_mut())(&sequence);
            (0..tries.get()).try_for_each(once).map_err(|error| {
                tries.set(TRIES);
                TestCaseError::fail(format!("{error:#}"))
            })
        };
        match self
            .runner(index)
            .run(&operation::sequences(self.longest), test)
        {
            Ok(()) => Ok(()),
            Err(TestError::Fail(reason, sequence)) => Err(Failure {
                sequence,
                reason: reason.message().to_owned(),
            }),
            Err(TestError::Abort(reason)) => unreachable!("nothing is rejected: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERATOR: Generator = Generator {
        seed: 7,
        longest: 50,
        shrink_seconds: 60,
    };

    fn sequence(index: u64) -> String {
        let mut text = String::new();
        let passed = GENERATOR.try_sequence(index, |sequence| {
            text = format!("{sequence:?}");
            Ok(())
        });
        assert!(passed.is_ok());
        text
    }

    #[test]
    fn a_seed_gives_the_same_sequences_each_time() {
        assert_eq!(sequence(3), sequence(3));
        assert_ne!(sequence(3), sequence(4));
    }

    #[test]
    fn failures_shrink_to_what_matters() {
        let has_compact = |sequence: &[Operation]| {
            let is_compact = |operation: &Operation| matches!(operation, Operation::Compact);
            sequence.iter().any(is_compact)
        };
        let failure = (0..100)
            .find_map(|index| {
                let run = |sequence: &[Operation]| match has_compact(sequence) {
                    true => Err(anyhow::anyhow!("compacted")),
                    false => Ok(()),
                };
                GENERATOR.try_sequence(index, run).err()
            })
            .expect("one of a hundred sequences has that operation");
        assert_eq!(failure.reason, "compacted");
        assert_eq!(failure.sequence.len(), 1);
    }
}
