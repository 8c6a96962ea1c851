// SPDX-License-Identifier: GPL-2.0

//! How long locks are held, by their events.

use std::{collections::HashMap, time::Duration};

use anyhow::{ensure, Context, Result};
use ksm_tests::tracing::{Event, Events};

/// What an event takes in its buffer, at most.
const EVENT_BYTES: usize = 64;

/// Locks whose holds can be measured.
pub struct Kind {
    /// What the buffer for their events is called.
    buffer: &'static str,
    /// What their events belong to.
    subsystem: &'static str,
    /// Happens when a thread has such a lock; each event's first word is the lock.
    taken: &'static str,
    /// Happens when it gives it back.
    released: &'static str,
    /// Which of these events are meant, if not all.
    condition: Option<&'static str>,
}

/// That of address spaces. All kernels have its events.
pub const MMAP_LOCK: Kind = Kind {
    buffer: "mmap_lock",
    subsystem: "mmap_lock",
    taken: "mmap_lock_acquire_returned",
    released: "mmap_lock_released",
    condition: None,
};

/// Those of anonymous memory. A kernel that can prove its locking has their events; that a lock
/// is taken is said before the thread waits for it, if it must.
pub const ANON_VMA: Kind = Kind {
    buffer: "anon_vma",
    subsystem: "lock",
    taken: "lock_acquire",
    released: "lock_release",
    condition: Some("name == \"&anon_vma->rwsem\""),
};

/// Those of page tables. As above, but on one CPU nobody waits for a spinlock.
pub const PAGE_TABLE: Kind = Kind {
    buffer: "page_table",
    subsystem: "lock",
    taken: "lock_acquire",
    released: "lock_release",
    condition: Some("name ~ \"*ptlock*\" || name == \"&mm->page_table_lock\""),
};

/// That of the address spaces which have asked for merging: in `registry.rs`, in `slots.rs` of older
/// commits, or in `mm/ksm.c`. As above.
pub const SLOTS: Kind = Kind {
    buffer: "slots",
    subsystem: "lock",
    taken: "lock_acquire",
    released: "lock_release",
    condition: Some(
        "name ~ \"*registry.rs*\" || name ~ \"*slots.rs*\" || name == \"ksm_mmlist_lock\"",
    ),
};

impl Kind {
    /// True if this kernel has its events.
    pub fn has_events(&self) -> Result<bool> {
        Events::exist(&format!("{}/{}", self.subsystem, self.taken))
    }

    fn condition(&self, threads: &[u32]) -> String {
        let threads: Vec<_> = threads
            .iter()
            .map(|thread| format!("common_pid == {thread}"))
            .collect();
        let threads = threads.join(" || ");
        match self.condition {
            Some(condition) => format!("({threads}) && ({condition})"),
            None => threads,
        }
    }
}

/// Measures holds.
pub struct Holds {
    kind: &'static Kind,
    events: Events,
}

impl Holds {
    /// Counts locks that `threads` take, at most about `locks` of them at a time.
    pub fn prepare(kind: &'static Kind, threads: &[u32], locks: usize) -> Result<Self> {
        ensure!(
            kind.has_events()?,
            "this kernel has no events {}",
            kind.taken
        );
        let names = [kind.taken, kind.released];
        let events = Events::record_times_in(kind.buffer, kind.subsystem, &names)?;
        events.make_room(2 * locks * EVENT_BYTES)?;
        events.only_if(&kind.condition(threads))?;
        Ok(Self { kind, events })
    }

    /// From here on it counts.
    pub fn start(&self) -> Result<()> {
        self.events.forget()
    }

    /// The longest since [`Holds::start`].
    pub fn longest(&self) -> Result<Duration> {
        let longest = self.longest_if_any()?;
        longest.with_context(|| format!("no lock was taken: {}", self.kind.buffer))
    }

    /// As [`Holds::longest`], if the lock was taken at all.
    pub fn longest_if_any(&self) -> Result<Option<Duration>> {
        self.events.ensure_all_are_kept()?;
        let mut pairs = Pairs::of(self.kind);
        self.events.for_each(|event| pairs.add(&event))?;
        Ok((pairs.complete > 0).then_some(pairs.longest))
    }
}

/// Joins what happens to a lock at the beginning and at the end of a hold.
struct Pairs {
    kind: &'static Kind,
    /// By lock. A thread does not take one lock twice, and two threads do not take one at once.
    held: HashMap<String, Duration>,
    longest: Duration,
    complete: usize,
}

impl Pairs {
    fn of(kind: &'static Kind) -> Self {
        Self {
            kind,
            held: HashMap::new(),
            longest: Duration::ZERO,
            complete: 0,
        }
    }

    fn add(&mut self, event: &Event) {
        let Some(lock) = event.text.split_whitespace().next() else {
            return;
        };
        if event.name == self.kind.taken && !event.text.contains("success=false") {
            self.held.insert(lock.to_owned(), event.time);
        } else if event.name == self.kind.released {
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

    fn pairs_of(kind: &'static Kind, events: &[Event]) -> (u128, usize) {
        let mut pairs = Pairs::of(kind);
        for event in events {
            pairs.add(event);
        }
        (pairs.longest.as_micros(), pairs.complete)
    }

    fn event(micros: u64, name: &str, text: &str) -> Event {
        Event {
            time: Duration::from_micros(micros),
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn holds_of_several_locks_are_kept_apart() {
        let (taken, released) = (MMAP_LOCK.taken, MMAP_LOCK.released);
        let events = [
            event(1, released, "mm=a memcg_id=1 write=false"),
            event(10, taken, "mm=a memcg_id=1 write=false success=true"),
            event(12, taken, "mm=b memcg_id=1 write=true success=true"),
            event(13, taken, "mm=c memcg_id=1 write=true success=false"),
            event(17, released, "mm=a memcg_id=1 write=false"),
            event(30, released, "mm=b memcg_id=1 write=true"),
            event(90, released, "mm=c memcg_id=1 write=true"),
        ];
        assert_eq!(pairs_of(&MMAP_LOCK, &events), (18, 2));
    }

    #[test]
    fn locks_of_one_class_are_kept_apart() {
        let (taken, released) = (ANON_VMA.taken, ANON_VMA.released);
        let events = [
            event(1, taken, "000000001 read &anon_vma->rwsem"),
            event(3, taken, "000000002 try &anon_vma->rwsem"),
            event(8, released, "000000002 &anon_vma->rwsem"),
            event(9, released, "000000001 &anon_vma->rwsem"),
        ];
        assert_eq!(pairs_of(&ANON_VMA, &events), (8, 2));
    }

    #[test]
    fn conditions_name_threads_and_locks() {
        assert_eq!(
            MMAP_LOCK.condition(&[1, 2]),
            "common_pid == 1 || common_pid == 2"
        );
        assert_eq!(
            ANON_VMA.condition(&[1]),
            "(common_pid == 1) && (name == \"&anon_vma->rwsem\")"
        );
    }
}
