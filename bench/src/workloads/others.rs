// SPDX-License-Identifier: GPL-2.0

//! What everybody else pays for it that all of a process's memory is offered to KSM.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::{self, Run, Scanner},
    merge_any,
    peer::Peer,
    region::Region,
    PAGE_SIZE,
};
use nix::{
    sys::wait::waitpid,
    unistd::{fork, ForkResult},
};

use crate::{
    fill,
    paced::{PAGES_TO_SCAN, SLEEP_MILLISECS},
    report::Measures,
    statistics::median,
    workload::Plan,
};

/// Pages of the process: a fork, which copies its page tables, should not consist of that alone.
const MOST_PAGES: usize = 16_384;

/// Pages that are mapped, written to, and unmapped.
const MAPPED_PAGES: usize = 16;

/// What is compiled, and how long it is.
const SOURCE: &str = "/tmp/compiled.c";
const FUNCTIONS: u32 = 200;

/// How long the scanner is at it before anything is measured.
const SETTLE: Duration = Duration::from_millis(200);

/// What is measured.
struct Action {
    act: fn() -> Result<()>,
    /// How often it is done in a round.
    times: usize,
    /// What its costs are called, in the order of [`SETTINGS`].
    names: [&'static str; 3],
}

/// What the scanner is at meanwhile.
struct Setting {
    run: Run,
    sleep_millisecs: u32,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        run: Run::Stop,
        sleep_millisecs: SLEEP_MILLISECS,
    },
    Setting {
        run: Run::Merge,
        sleep_millisecs: SLEEP_MILLISECS,
    },
    Setting {
        run: Run::Merge,
        sleep_millisecs: 0,
    },
];

/// Short calls.
const CALLS: &[Action] = &[
    Action {
        act: fork_and_exit,
        times: 20,
        names: [
            "fork_exit_off_ns",
            "fork_exit_paced_ns",
            "fork_exit_busy_ns",
        ],
    },
    Action {
        act: exec,
        times: 20,
        names: ["exec_off_ns", "exec_paced_ns", "exec_busy_ns"],
    },
    Action {
        act: map_and_unmap,
        times: 20,
        names: [
            "mmap_munmap_off_ns",
            "mmap_munmap_paced_ns",
            "mmap_munmap_busy_ns",
        ],
    },
];

/// A program at work.
const WORK: &[Action] = &[Action {
    act: compile,
    times: 1,
    names: ["compile_off_ns", "compile_paced_ns", "compile_busy_ns"],
}];

pub fn merge_any(plan: &Plan) -> Result<Measures> {
    at_each_setting(plan, CALLS)
}

pub fn compiler(plan: &Plan) -> Result<Measures> {
    fs::write(SOURCE, source())?;
    at_each_setting(plan, WORK)
}

fn at_each_setting(plan: &Plan, actions: &'static [Action]) -> Result<Measures> {
    let _settings = Scanner::prepare()?;
    ksm::write("smart_scan", 1)?;
    ksm::write("pages_to_scan", PAGES_TO_SCAN)?;
    let pages = plan.pages.min(MOST_PAGES);
    let mut peer = Peer::fork(|link| {
        merge_any::set(true).context("PR_SET_MEMORY_MERGE")?;
        let mut region = Region::new(pages)?;
        region.populate()?;
        fill::pairs(region.bytes_mut());
        link.step()?;
        for _ in 0..plan.rounds * SETTINGS.len() {
            link.await_step()?;
            let costs = actions.iter().map(Action::cost);
            link.send(costs.collect::<Result<Vec<f64>>>()?)?;
        }
        Ok(())
    })?;
    peer.await_step()?;
    // For each setting the costs of all actions, round by round.
    let mut all = SETTINGS.map(|_| Vec::<Vec<f64>>::new());
    // In turns, so that what changes on the machine meets all.
    for _ in 0..plan.rounds {
        for (setting, costs) in SETTINGS.iter().zip(&mut all) {
            ksm::write("sleep_millisecs", setting.sleep_millisecs)?;
            ksm::set_run(setting.run)?;
            thread::sleep(SETTLE);
            peer.step()?;
            costs.push(peer.receive()?);
        }
    }
    peer.join()?;
    let mut measures = Measures::default();
    for (number, action) in actions.iter().enumerate() {
        for (name, costs) in action.names.iter().zip(&all) {
            let rounds = costs.iter().map(|costs| costs[number]).collect();
            measures.add(name, median(rounds));
        }
    }
    Ok(measures)
}

impl Action {
    /// The median of so many times, in nanoseconds.
    fn cost(&self) -> Result<f64> {
        let time = |_| {
            let begin = Instant::now();
            (self.act)()?;
            Ok(begin.elapsed())
        };
        let times = (0..self.times).map(time).collect::<Result<_>>()?;
        Ok(median::<Duration>(times).as_nanos() as f64)
    }
}

fn fork_and_exit() -> Result<()> {
    // SAFETY: This process has one thread.
    match unsafe { fork() }.context("fork")? {
        // SAFETY: Ends the process at once; nothing is left to be done in it.
        ForkResult::Child => unsafe { libc::_exit(0) },
        ForkResult::Parent { child } => {
            waitpid(child, None).context("waitpid")?;
            Ok(())
        }
    }
}

/// A small program, which inherits that its memory is offered; to the end of it.
fn exec() -> Result<()> {
    run(&mut Command::new("true"))
}

/// The compiler has a process for each of its passes, and they all inherit that.
fn compile() -> Result<()> {
    run(Command::new("cc").args(["-O2", "-c", SOURCE, "-o", "/dev/null"]))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} has failed");
    Ok(())
}

/// A program in C with enough in it for a compiler to be at it for a second or so.
fn source() -> String {
    let function = |number| {
        format!(
            "unsigned f{number}(const unsigned *p, unsigned n) {{\n\
             \tunsigned i, sum = {number};\n\
             \tfor (i = 0; i < n; i++)\n\
             \t\tsum = p[i] % {divisor} ? sum * 31 + p[i] : sum ^ (p[i] >> {shift});\n\
             \treturn sum;\n\
             }}\n",
            divisor = number + 2,
            shift = number % 31,
        )
    };
    (0..FUNCTIONS).map(function).collect()
}

fn map_and_unmap() -> Result<()> {
    let mut region = Region::new(MAPPED_PAGES)?;
    for page in region.bytes_mut().chunks_exact_mut(PAGE_SIZE) {
        page[0] = 1;
    }
    Ok(())
}
