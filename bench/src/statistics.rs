// SPDX-License-Identifier: GPL-2.0

//! Numbers that stand for many.

use std::time::Duration;

/// The one in the middle; of an even number of them, the later of the two.
pub fn median(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Nanoseconds for each of so many things.
pub fn nanoseconds_each(time: Duration, things: usize) -> f64 {
    time.as_nanos() as f64 / things as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let millis = |values: &[u64]| values.iter().copied().map(Duration::from_millis).collect();
        assert_eq!(median(millis(&[9])).as_millis(), 9);
        assert_eq!(median(millis(&[9, 1, 2])).as_millis(), 2);
        assert_eq!(median(millis(&[4, 1, 2, 3])).as_millis(), 3);
    }

    #[test]
    fn time_is_shared_out() {
        assert_eq!(nanoseconds_each(Duration::from_micros(3), 2), 1500.0);
    }
}
