// SPDX-License-Identifier: GPL-2.0

//! A thread's CPU time, by the scheduler's events.
//!
//! The account that the scheduler of User Mode Linux keeps is in ticks of 10 ms. Its events have the
//! host's clock, and tell exactly when a thread was given a CPU and when it had to leave it. So others
//! may run meanwhile, and the thread may sleep as often as it likes.

use std::time::Duration;

use anyhow::{ensure, Result};
use ksm_tests::tracing::{Event, Events};

const SWITCH: &str = "sched_switch";

/// Room for events: a hundred thousand of them.
const BUFFER_BYTES: usize = 16 << 20;

/// Measures the CPU time of `ksmd`.
pub struct CpuClock {
    thread: u32,
    events: Events,
}

impl CpuClock {
    /// Begins to record when `thread` runs, which is the scanner's.
    pub fn new(thread: u32) -> Result<Self> {
        ensure!(Events::exist("ksm")?, "this kernel has no events of KSM");
        let events = Events::record_times("ksm", &[])?;
        events.make_room(BUFFER_BYTES)?;
        let condition = format!("prev_pid == {thread} || next_pid == {thread}");
        events.also("sched", SWITCH, &condition)?;
        Ok(Self { thread, events })
    }

    /// Counts from zero; the thread sleeps.
    pub fn start(&self) -> Result<()> {
        self.events.forget()
    }

    /// The CPU time since [`CpuClock::start`]; the thread sleeps again, or has just left the CPU.
    pub fn read(&self) -> Result<Duration> {
        self.events.ensure_all_are_kept()?;
        let mut turns = Turns::of(self.thread);
        self.events.for_each(|event| turns.add(&event))?;
        Ok(turns.total)
    }
}

/// Adds up the times between those at which a thread gets the CPU and leaves it.
struct Turns {
    /// How events name the thread that leaves the CPU, and that which gets it.
    leaves: String,
    gets: String,
    since: Option<Duration>,
    total: Duration,
}

impl Turns {
    fn of(thread: u32) -> Self {
        Self {
            leaves: format!("prev_pid={thread}"),
            gets: format!("next_pid={thread}"),
            since: None,
            total: Duration::ZERO,
        }
    }

    fn add(&mut self, event: &Event) {
        if event.name != SWITCH {
            return;
        }
        let mut words = event.text.split_whitespace();
        if words.clone().any(|word| word == self.leaves) {
            if let Some(since) = self.since.take() {
                self.total += event.time - since;
            }
        } else if words.any(|word| word == self.gets) {
            self.since = Some(event.time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_turns_of_the_thread_count() {
        let mut turns = Turns::of(27);
        for (micros, name, text) in [
            (
                5,
                SWITCH,
                "prev_comm=ksmd prev_pid=27 ==> next_comm=a next_pid=1",
            ),
            (
                10,
                SWITCH,
                "prev_comm=a prev_pid=1 ==> next_comm=ksmd next_pid=27",
            ),
            (12, "ksm_stop_scan", "seq 1 rmap size 2"),
            (
                17,
                SWITCH,
                "prev_comm=ksmd prev_pid=27 ==> next_comm=b next_pid=270",
            ),
            (
                20,
                SWITCH,
                "prev_comm=b prev_pid=270 ==> next_comm=ksmd next_pid=27",
            ),
            (
                21,
                SWITCH,
                "prev_comm=ksmd prev_pid=27 ==> next_comm=a next_pid=1",
            ),
        ] {
            turns.add(&Event {
                time: Duration::from_micros(micros),
                name: name.to_owned(),
                text: text.to_owned(),
            });
        }
        assert_eq!(turns.total.as_micros(), 8);
    }
}
