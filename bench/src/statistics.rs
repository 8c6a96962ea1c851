// SPDX-License-Identifier: GPL-2.0

//! Numbers that stand for many.

use std::time::Duration;

/// The one in the middle; of an even number of them, the later of the two.
pub fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("measured values are numbers"));
    values[values.len() / 2]
}

/// The mean of all.
pub fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / times.len().max(1) as u32
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
        assert_eq!(median(vec![9]), 9);
        assert_eq!(median(vec![9, 1, 2]), 2);
        assert_eq!(median(vec![4.5, 1.5, 2.5, 3.5]), 3.5);
    }

    #[test]
    fn the_mean_is_that_of_all() {
        assert_eq!(mean(&[]).as_millis(), 0);
        let times = [1, 2, 6].map(Duration::from_millis);
        assert_eq!(mean(&times).as_millis(), 3);
    }

    #[test]
    fn time_is_shared_out() {
        assert_eq!(nanoseconds_each(Duration::from_micros(3), 2), 1500.0);
    }
}
