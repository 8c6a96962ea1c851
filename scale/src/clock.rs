// SPDX-License-Identifier: GPL-2.0

//! Time that the current thread has had a CPU.

/// How many parts a measurement has; their median counts: so somebody else who uses the same
/// memory for a moment does not.
pub(crate) const PARTS: usize = 15;

/// Nanoseconds of CPU time that an operation takes, of `count` that are done by `work`, which is told
/// which ones.
pub(crate) fn nanoseconds(count: usize, mut work: impl FnMut(std::ops::Range<usize>)) -> f64 {
    let part = count / PARTS;
    let mut times: Vec<f64> = (0..PARTS)
        .map(|number| {
            let begin = now();
            work(number * part..(number + 1) * part);
            (now() - begin) as f64 / part as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[PARTS / 2]
}

/// Nanoseconds of CPU time so far.
fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: The clock exists, and the time is the caller's.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
