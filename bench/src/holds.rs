// SPDX-License-Identifier: GPL-2.0

//! How long locks are held.
//!
//! A kernel with lock statistics counts all locks, but slows them down. The others have events for
//! the mmap lock: User Mode Linux at native speed.

use std::{collections::HashMap, path::Path, time::Duration};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    control_file,
    tracing::{Event, Events},
};

use crate::report::Measures;

const TAKEN: &str = "mmap_lock_acquire_returned";
const RELEASED: &str = "mmap_lock_released";

/// What an event takes in its buffer, at most.
const EVENT_BYTES: usize = 64;

const STATISTICS: &str = "/proc/lock_stat";
const STATISTICS_SWITCH: &str = "/proc/sys/kernel/lock_stat";

/// Measures holds.
pub enum Holds {
    Events(Events),
    Statistics,
}

/// What one kind of measurement is called.
pub struct Names {
    pub mmap_lock: &'static str,
    pub anon_vma: &'static str,
}

impl Holds {
    /// Counts locks that `threads` take, at most about `locks` of them at a time.
    pub fn prepare(threads: &[u32], locks: usize) -> Result<Self> {
        if Path::new(STATISTICS).exists() {
            // Counts whoever takes a lock, which is hardly anybody else.
            control_file::write(STATISTICS_SWITCH, 1)?;
            return Ok(Self::Statistics);
        }
        ensure!(
            Events::exist("mmap_lock")?,
            "this kernel has neither events of locks nor CONFIG_LOCK_STAT"
        );
        let events = Events::record_times("mmap_lock", &[TAKEN, RELEASED])?;
        events.make_room(2 * locks * EVENT_BYTES)?;
        let conditions: Vec<_> = threads
            .iter()
            .map(|thread| format!("common_pid == {thread}"))
            .collect();
        events.only_if(&conditions.join(" || "))?;
        Ok(Self::Events(events))
    }

    /// From here on it counts.
    pub fn start(&self) -> Result<()> {
        match self {
            Self::Events(events) => events.forget(),
            Self::Statistics => control_file::write(STATISTICS, 0),
        }
    }

    /// Adds the longest hold of each lock since [`Holds::start`].
    pub fn add_longest(&self, measures: &mut Measures, names: &Names) -> Result<()> {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        match self {
            Self::Events(events) => {
                measures.add(names.mmap_lock, micros(longest_in(events)?));
            }
            Self::Statistics => {
                let text = control_file::read_text(STATISTICS)?;
                measures.add(names.mmap_lock, longest_of(&text, "&mm->mmap_lock")?);
                measures.add(names.anon_vma, longest_of(&text, "&anon_vma->rwsem")?);
            }
        }
        Ok(())
    }
}

fn longest_in(events: &Events) -> Result<Duration> {
    events.ensure_all_are_kept()?;
    let mut pairs = Pairs::default();
    events.for_each(|event| pairs.add(&event))?;
    ensure!(pairs.complete > 0, "no lock was taken");
    Ok(pairs.longest)
}

/// Joins what happens to a lock at the beginning and at the end of a hold.
#[derive(Default)]
struct Pairs {
    /// By thread, which does not take one lock twice, and by lock.
    held: HashMap<String, Duration>,
    longest: Duration,
    complete: usize,
}

impl Pairs {
    fn add(&mut self, event: &Event) {
        let Some(lock) = event.text.split_whitespace().next() else {
            return;
        };
        if event.name == TAKEN && event.text.contains("success=true") {
            self.held.insert(lock.to_owned(), event.time);
        } else if event.name == RELEASED {
            if let Some(begin) = self.held.remove(lock) {
                self.longest = self.longest.max(event.time - begin);
                self.complete += 1;
            }
        }
    }
}

/// In `lock_stat`: the longest hold of a class of locks in microseconds, by readers and writers.
fn longest_of(text: &str, class: &str) -> Result<f64> {
    let lines = text.lines().filter_map(|line| {
        let (name, numbers) = line.rsplit_once(':')?;
        let name = name.trim();
        let is_it = ["-R", "-W", ""]
            .iter()
            .any(|end| name.strip_suffix(end) == Some(class));
        let longest = numbers.split_whitespace().nth(HOLDTIME_MAX)?;
        is_it.then(|| longest.parse::<f64>().ok())?
    });
    lines
        .reduce(f64::max)
        .with_context(|| format!("there are no statistics of {class}"))
}

/// The number of its column.
const HOLDTIME_MAX: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(micros: u64, name: &str, text: &str) -> Event {
        Event {
            time: Duration::from_micros(micros),
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn holds_of_several_locks_are_kept_apart() {
        let mut pairs = Pairs::default();
        for event in [
            event(1, RELEASED, "mm=a memcg_id=1 write=false"),
            event(10, TAKEN, "mm=a memcg_id=1 write=false success=true"),
            event(12, TAKEN, "mm=b memcg_id=1 write=true success=true"),
            event(13, TAKEN, "mm=c memcg_id=1 write=true success=false"),
            event(17, RELEASED, "mm=a memcg_id=1 write=false"),
            event(30, RELEASED, "mm=b memcg_id=1 write=true"),
            event(90, RELEASED, "mm=c memcg_id=1 write=true"),
        ] {
            pairs.add(&event);
        }
        assert_eq!(pairs.longest.as_micros(), 18);
        assert_eq!(pairs.complete, 2);
    }

    #[test]
    fn statistics_are_read_by_class() {
        let text = "lock_stat version 0.4\n\
            class name con-bounces contentions waittime-min waittime-max waittime-total \
            waittime-avg acq-bounces acquisitions holdtime-min holdtime-max\n\
            &mm->mmap_lock-W: 0 0 0.00 0.00 0.00 0.00 2 40 0.10 12.50 99.00 2.00\n\
            &mm->mmap_lock-R: 0 0 0.00 0.00 0.00 0.00 2 40 0.10 31.25 99.00 2.00\n\
            &mm->mmap_lock/1: 0 0 0.00 0.00 0.00 0.00 2 40 0.10 77.00 99.00 2.00\n\
            &rq->__lock: 0 0 0.00 0.00 0.00 0.00 2 40 0.10 5.00 99.00 2.00\n";
        assert_eq!(longest_of(text, "&mm->mmap_lock").unwrap(), 31.25);
        assert_eq!(longest_of(text, "&rq->__lock").unwrap(), 5.0);
        assert!(longest_of(text, "&anon_vma->rwsem").is_err());
    }
}
