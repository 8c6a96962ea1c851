// SPDX-License-Identifier: GPL-2.0

//! Trace events.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Lines, Read},
    path::PathBuf,
    time::Duration,
};

use anyhow::{ensure, Context, Result};

use nix::{errno::Errno, mount::MsFlags};

use crate::control_file;

const ROOT: &str = "/sys/kernel/tracing";

/// One event that was recorded.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, by the clock of tracing.
    pub time: Duration,
    /// Its name.
    pub name: String,
    /// Its fields, as the kernel prints them.
    pub text: String,
}

/// The events of one subsystem, recorded until this is dropped, in a buffer of their own.
pub struct Events {
    buffer: PathBuf,
    subsystem: String,
}

impl Events {
    /// True if this kernel has events of `subsystem`.
    pub fn exist(subsystem: &str) -> Result<bool> {
        mount()?;
        Ok(PathBuf::from(ROOT).join("events").join(subsystem).exists())
    }

    /// Begins to record all events of `subsystem`.
    pub fn record(subsystem: &str) -> Result<Self> {
        let events = Self::prepare(subsystem, subsystem)?;
        control_file::write(events.directory().join("enable"), 1)?;
        Ok(events)
    }

    /// Begins to record these events of `subsystem`, with times that are exact to the
    /// microsecond.
    pub fn record_times(subsystem: &str, names: &[&str]) -> Result<Self> {
        Self::record_times_in(subsystem, subsystem, names)
    }

    /// As [`Events::record_times`], in a buffer called `name`, as there may be another one for events
    /// of that subsystem.
    pub fn record_times_in(name: &str, subsystem: &str, names: &[&str]) -> Result<Self> {
        let events = Self::prepare(name, subsystem)?;
        control_file::write(events.buffer.join("trace_clock"), "mono")?;
        for name in names {
            events.enable(name)?;
        }
        Ok(events)
    }

    fn enable(&self, name: &str) -> Result<()> {
        control_file::write(self.directory().join(name).join("enable"), 1)
    }

    /// A buffer of this name in which nothing is recorded yet.
    fn prepare(name: &str, subsystem: &str) -> Result<Self> {
        let buffer = PathBuf::from(ROOT).join("instances").join(name);
        fs::create_dir(&buffer).with_context(|| format!("cannot make {}", buffer.display()))?;
        Ok(Self {
            buffer,
            subsystem: subsystem.to_owned(),
        })
    }

    fn directory(&self) -> PathBuf {
        self.buffer.join("events").join(&self.subsystem)
    }

    /// Begins to record an event of another subsystem as well, in the same buffer, if it meets a
    /// condition on its fields.
    pub fn also(&self, subsystem: &str, name: &str, condition: &str) -> Result<()> {
        let event = self.buffer.join("events").join(subsystem).join(name);
        control_file::write(event.join("filter"), condition)?;
        control_file::write(event.join("enable"), 1)
    }

    /// From now on only what meets a condition on the events' fields.
    pub fn only_if(&self, condition: &str) -> Result<()> {
        control_file::write(self.directory().join("filter"), condition)
    }

    /// Makes room for so many bytes of events.
    pub fn make_room(&self, bytes: usize) -> Result<()> {
        control_file::write(self.buffer.join("buffer_size_kb"), bytes / 1024)
    }

    /// Forgets what was recorded so far.
    pub fn forget(&self) -> Result<()> {
        control_file::write(self.buffer.join("trace"), "")
    }

    /// Names of the events that there are.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory()).context("cannot list events")? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The names of an event's own fields.
    pub fn fields(&self, event: &str) -> Result<Vec<String>> {
        let text = control_file::read_text(self.directory().join(event).join("format"))?;
        Ok(own_fields(&text))
    }

    /// The events recorded so far.
    pub fn seen(&self) -> Result<Vec<Event>> {
        let mut seen = Vec::new();
        self.for_each(|event| seen.push(event))?;
        Ok(seen)
    }

    /// As [`Events::seen`], one by one: there may be many.
    pub fn for_each(&self, mut look: impl FnMut(Event)) -> Result<()> {
        for line in self.trace()? {
            if let Some(event) = event_in(&line?) {
                look(event);
            }
        }
        Ok(())
    }

    /// Fails if there were more events than there was room for.
    pub fn ensure_all_are_kept(&self) -> Result<()> {
        for line in self.trace()? {
            let line = line?;
            if !line.starts_with('#') {
                break;
            }
            ensure!(!tells_of_loss(&line), "events were lost: {line}");
        }
        Ok(())
    }

    fn trace(&self) -> Result<Lines<BufReader<File>>> {
        let file = File::open(self.buffer.join("trace")).context("cannot read events")?;
        Ok(BufReader::new(file).lines())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Recording on would only cost time.
        let _ = fs::remove_dir(&self.buffer);
    }
}

/// An event that can be slept for.
pub struct Awaited {
    pipe: File,
    events: Events,
}

impl Awaited {
    /// Begins to record the event `name` of `subsystem`, in a buffer of that name.
    pub fn record(subsystem: &str, name: &str) -> Result<Self> {
        let events = Events::prepare(name, subsystem)?;
        events.enable(name)?;
        let pipe =
            File::open(events.buffer.join("trace_pipe")).context("cannot wait for events")?;
        Ok(Self { pipe, events })
    }

    /// What has happened so far does not count.
    pub fn forget(&self) -> Result<()> {
        self.events.forget()
    }

    /// Sleeps until it has happened.
    pub fn sleep(&mut self) -> Result<()> {
        let length = self
            .pipe
            .read(&mut [0; 4096])
            .context("cannot wait for events")?;
        ensure!(length > 0, "events are not recorded any more");
        Ok(())
    }
}

/// Makes the files of tracing visible, where the kernel has them.
fn mount() -> Result<()> {
    let kind = Some("tracefs");
    match nix::mount::mount(kind, ROOT, kind, MsFlags::empty(), None::<&str>) {
        // Mounted already, or not there.
        Ok(()) | Err(Errno::EBUSY | Errno::ENOENT | Errno::ENODEV) => Ok(()),
        other => other.context("cannot mount tracefs"),
    }
}

/// In a `format` file: the fields after those that all events have.
fn own_fields(format: &str) -> Vec<String> {
    let names = format.lines().filter_map(|line| {
        let declaration = line.trim().strip_prefix("field:")?.split(';').next()?;
        declaration.split_whitespace().last()
    });
    names
        .filter(|name| !name.starts_with("common_"))
        .map(str::to_owned)
        .collect()
}

/// The head of `trace` has `entries-in-buffer/entries-written: 7/9` in it.
fn tells_of_loss(line: &str) -> bool {
    let Some((_, counts)) = line.split_once("entries-written: ") else {
        return false;
    };
    let first = counts.split_whitespace().next();
    first
        .and_then(|counts| counts.split_once('/'))
        .is_some_and(|(kept, written)| kept != written)
}

/// In a line of `trace`: `task-pid [cpu] flags seconds: name: text`.
fn event_in(line: &str) -> Option<Event> {
    if line.starts_with('#') {
        return None;
    }
    let mut parts = line.splitn(3, ": ");
    let (head, name, text) = (parts.next()?, parts.next()?, parts.next()?);
    let seconds = head.split_whitespace().next_back()?.parse().ok()?;
    Some(Event {
        time: Duration::try_from_secs_f64(seconds).ok()?,
        name: name.to_owned(),
        text: text.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_the_common_ones() {
        let format = "name: ksm_enter\nformat:\n\tfield:int common_pid;\toffset:4;\n\n\
                      \tfield:void * mm;\toffset:8;\tsize:8;\n\tfield:int err;\toffset:16;\n";
        assert_eq!(own_fields(format), ["mm", "err"]);
    }

    #[test]
    fn losses_are_noticed() {
        let head = "# entries-in-buffer/entries-written: ";
        assert!(!tells_of_loss(&format!("{head}12/12   #P:1")));
        assert!(tells_of_loss(&format!("{head}12/130   #P:1")));
        assert!(!tells_of_loss("# tracer: nop"));
    }

    #[test]
    fn lines_are_taken_apart() {
        let line =
            "            ksmd-27      [000] .....     1.234567: ksm_start_scan: seq 1 rmap size 2";
        let event = event_in(line).unwrap();
        assert_eq!(event.time.as_micros(), 1_234_567);
        assert_eq!(event.name, "ksm_start_scan");
        assert_eq!(event.text, "seq 1 rmap size 2");
        assert_eq!(event_in("# tracer: nop"), None);
    }
}
