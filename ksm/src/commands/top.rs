// SPDX-License-Identifier: GPL-2.0

//! `ksm top`: what KSM does just now, and for whom.

mod lines;
mod rates;
mod screen;

use std::{
    io::{self, IsTerminal, Write},
    thread,
    time::{Duration, Instant},
};

use anyhow::{ensure, Result};
use procfs::process::Process;
use serde::Serialize;

use crate::{
    cli::{Order, Top},
    kernel::Ksm,
    statistics::{self, OfProcess, Statistics},
};

use rates::Rates;

/// One look at KSM.
#[derive(Serialize)]
struct Look {
    #[serde(flatten)]
    statistics: Statistics,
    #[serde(flatten)]
    rates: Rates,
    processes: Vec<OfProcess>,
}

/// Looks again and again.
struct Watch {
    ksm: Ksm,
    thread: Option<Process>,
    last: Option<(Instant, Statistics)>,
}

impl Watch {
    fn look(&mut self, order: Order) -> Result<Look> {
        self.thread = self
            .thread
            .take()
            .filter(Process::is_alive)
            .or_else(statistics::thread);
        let (now, statistics) = (
            Instant::now(),
            Statistics::read(&self.ksm, self.thread.as_ref())?,
        );
        let before = self.last.replace((now, statistics.clone()));
        let rates = before.map_or_else(Rates::default, |(then, before)| {
            Rates::between(&before, &statistics, now.duration_since(then))
        });
        let mut processes = statistics::of_processes()?;
        sort(&mut processes, order);
        Ok(Look {
            statistics,
            rates,
            processes,
        })
    }
}

/// Shows KSM until it is told to stop: on a terminal as a screen, else in lines.
///
/// # Errors
///
/// There is no KSM.
pub fn run(top: &Top, json: bool, out: &mut dyn Write) -> Result<()> {
    ensure!(
        top.interval > 0.0 && top.interval < 1e6,
        "--interval is a number of seconds"
    );
    let interval = Duration::from_secs_f64(top.interval);
    let mut watch = Watch {
        ksm: Ksm::open()?,
        thread: None,
        last: None,
    };
    if !json && io::stdout().is_terminal() {
        return screen::run(&mut watch, interval, top.order);
    }
    let mut looks = 0;
    while top.count.is_none_or(|count| looks < count) {
        if looks > 0 {
            thread::sleep(interval);
        }
        let look = watch.look(top.order)?;
        match json {
            true => writeln!(out, "{}", serde_json::to_string(&look)?)?,
            false => lines::print(&look, out)?,
        }
        looks += 1;
    }
    Ok(())
}

fn sort(processes: &mut [OfProcess], order: Order) {
    processes.sort_by(|one, other| match order {
        Order::Merged => other.merged.cmp(&one.merged),
        Order::Profit => other.profit.cmp(&one.profit),
        Order::Zero => other.zero.cmp(&one.zero),
        Order::Name => one.process.name.cmp(&other.process.name),
        Order::Domain => {
            (one.process.domain, other.merged).cmp(&(other.process.domain, one.merged))
        }
    });
}
