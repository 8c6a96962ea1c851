// SPDX-License-Identifier: GPL-2.0

//! How long the mmap lock is held, by its events.

use std::{collections::HashMap, time::Duration};

use anyhow::{ensure, Result};
use ksm_tests::tracing::{Event, Events};

const TAKEN: &str = "mmap_lock_acquire_returned";
const RELEASED: &str = "mmap_lock_released";

/// What an event takes in its buffer, at most.
const EVENT_BYTES: usize = 64;

/// Measures holds.
pub struct Holds(Events);

impl Holds {
    /// Counts locks that `threads` take, at most about `locks` of them at a time.
    pub fn prepare(threads: &[u32], locks: usize) -> Result<Self> {
        ensure!(
            Events::exist("mmap_lock")?,
            "this kernel has no events of the mmap lock"
        );
        let events = Events::record_times("mmap_lock", &[TAKEN, RELEASED])?;
        events.make_room(2 * locks * EVENT_BYTES)?;
        let conditions: Vec<_> = threads
            .iter()
            .map(|thread| format!("common_pid == {thread}"))
            .collect();
        events.only_if(&conditions.join(" || "))?;
        Ok(Self(events))
    }

    /// From here on it counts.
    pub fn start(&self) -> Result<()> {
        self.0.forget()
    }

    /// The longest since [`Holds::start`].
    pub fn longest(&self) -> Result<Duration> {
        longest_in(&self.0)
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
}
