// SPDX-License-Identifier: GPL-2.0

//! Processes: those that have memory, and the names by which people know them.

pub mod domain;
mod naming;

use anyhow::{Context, Result};
use procfs::process::{self, Process};
use serde::Serialize;

/// A process that has memory of its own.
#[derive(Clone, Debug, Serialize)]
pub struct Named {
    /// Its number.
    pub pid: i32,
    /// The name of its guest, if it is a hypervisor, else that of its program. Printable.
    pub name: String,
    /// Its systemd unit or container, if it is in one. Printable.
    pub group: Option<String>,
    /// Its domain, if this kernel has domains.
    pub domain: Option<u64>,
}

/// The processes of these numbers, or all if there are none.
///
/// # Errors
///
/// There is no process of such a number, or it has no memory.
pub fn wanted(pids: &[i32]) -> Result<Vec<Named>> {
    match pids {
        [] => all(),
        pids => some(pids),
    }
}

/// All processes that have memory of their own, by number: not threads of the kernel.
///
/// A process that ends meanwhile is left out.
pub fn all() -> Result<Vec<Named>> {
    let mut found: Vec<Named> = numbers()?.filter_map(find).collect();
    found.sort_by_key(|process| process.pid);
    Ok(found)
}

/// The numbers of all processes.
pub fn numbers() -> Result<impl Iterator<Item = i32>> {
    let processes = process::all_processes().context("cannot read /proc")?;
    Ok(processes.filter_map(|process| Some(process.ok()?.pid)))
}

/// The process of that number, if there is one and it has memory.
pub fn find(pid: i32) -> Option<Named> {
    named(&Process::new(pid).ok()?)
}

fn some(pids: &[i32]) -> Result<Vec<Named>> {
    let found = pids.iter().map(|pid| {
        let process = Process::new(*pid).with_context(|| format!("there is no process {pid}"))?;
        named(&process).with_context(|| {
            format!("process {pid} has no memory: it is one of the kernel, or has ended")
        })
    });
    found.collect()
}

/// `None` if the process has no memory.
fn named(process: &Process) -> Option<Named> {
    let status = process.stat().ok()?;
    if status.vsize == 0 {
        return None;
    }
    let words = process.cmdline().unwrap_or_default();
    let groups = process.cgroups().map(|groups| groups.0).unwrap_or_default();
    let unified = groups.iter().find(|group| group.hierarchy == 0);
    Some(Named {
        pid: process.pid,
        name: naming::printable(naming::guest(&words).unwrap_or(&status.comm)),
        group: unified
            .and_then(|group| naming::unit(&group.pathname))
            .map(naming::printable),
        domain: domain::of(process.pid),
    })
}
