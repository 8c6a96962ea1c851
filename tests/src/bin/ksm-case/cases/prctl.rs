// SPDX-License-Identifier: GPL-2.0

//! `prctl(PR_SET_MEMORY_MERGE)`: processes that offer all of their memory.

use anyhow::{ensure, Context, Result};
use ksm_tests::{
    ksm::Scanner,
    merge_any, pattern,
    peer::{Link, Peer},
    procfs::{self, KsmStat},
    region::Region,
};
use nix::errno::Errno;

use crate::{
    case::{Case, Options},
    helpers::{command_after_exec, ensure_private, ensure_shared, exec, step, AfterExec},
};

pub const CASES: &[Case] = &[
    Case::new(
        "prctl-merge-any",
        "memory of a merge-any process merges without advice, and parts when it is turned off",
        merge_without_advice,
    ),
    Case::new(
        "prctl-fork",
        "a child of a merge-any process is one too, and merges",
        inherit_by_fork,
    ),
    Case::new(
        "prctl-exec",
        "a merge-any process stays one when it starts another program",
        inherit_by_exec,
    ),
    Case::new(
        "prctl-arguments",
        "arguments that the call does not have are refused",
        arguments,
    ),
];

const PAGES: usize = 64;

/// Runs `body` in a process of its own, which alone becomes a merge-any process.
///
/// `body` asks for scans by [`settle`].
fn in_new_process(body: impl FnOnce(&mut Link) -> Result<()>) -> Result<()> {
    let scanner = Scanner::start()?;
    let mut child = Peer::fork(|link| {
        body(link)?;
        link.send(Request::End)
    })?;
    while let Request::Settle = child.receive()? {
        scanner.settle()?;
        child.step()?;
    }
    child.join()
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Request {
    Settle,
    End,
}

fn settle(link: &mut Link) -> Result<()> {
    link.send(Request::Settle)?;
    link.await_step()
}

fn merge_without_advice(_: &Options) -> Result<()> {
    in_new_process(|link| {
        let content = pattern::pages(1, PAGES);
        let before = Region::with_content(&content)?;
        ensure!(!merge_any::get()?, "it is on from the start");
        merge_any::set(true)?;
        ensure!(merge_any::get()?, "it is not on");
        ensure!(KsmStat::read("self")?.merge_any, "ksm_stat says no");
        let after = Region::with_content(&content)?;
        ensure!(procfs::is_mergeable(&before)?, "no mg before");
        ensure!(procfs::is_mergeable(&after)?, "no mg after");

        step("memory mapped before the call and after it merges");
        settle(link)?;
        ensure_shared(&before, &after)?;

        step("turned off, it parts at once");
        merge_any::set(false)?;
        ensure!(!merge_any::get()?, "it is still on");
        ensure!(!KsmStat::read("self")?.merge_any, "ksm_stat says yes");
        ensure!(!procfs::is_mergeable(&before)?, "mg is still there");
        ensure_private(&before, &after)?;
        before.verify(&content)?;
        after.verify(&content)?;

        step("and does not merge any more");
        settle(link)?;
        ensure_private(&before, &after)
    })
}

fn inherit_by_fork(_: &Options) -> Result<()> {
    in_new_process(|link| {
        merge_any::set(true)?;
        // The grandchild speaks to the first process over our line; we say nothing meanwhile.
        Peer::fork(|_| {
            ensure!(merge_any::get()?, "it is not on after fork");
            let content = pattern::pages(2, PAGES);
            let left = Region::with_content(&content)?;
            let right = Region::with_content(&content)?;
            settle(link)?;
            ensure_shared(&left, &right)?;
            left.verify(&content)?;
            right.verify(&content)
        })?
        .join()
    })
}

fn inherit_by_exec(_: &Options) -> Result<()> {
    for on in [false, true] {
        step(format!("execve, and fork with execve, while it is {on}"));
        let mut replaced = Peer::fork(|link| {
            merge_any::set(on)?;
            exec(link)
        })?;
        let state: AfterExec = replaced.receive()?;
        ensure!(state.merge_any == on, "it changed with execve");
        replaced.kill()?;

        let mut spawner = Peer::fork(|link| {
            merge_any::set(on)?;
            // The new program answers in our place, and ends when nobody listens any more.
            command_after_exec(link)?.status().context("spawn")?;
            Ok(())
        })?;
        let state: AfterExec = spawner.receive()?;
        ensure!(state.merge_any == on, "it changed with fork and execve");
        spawner.kill()?;
    }
    Ok(())
}

fn arguments(_: &Options) -> Result<()> {
    ensure!(
        merge_any::set_with_stray_argument() == Err(Errno::EINVAL),
        "a stray argument is accepted"
    );
    ensure!(!merge_any::get()?, "the refused call had an effect");
    Ok(())
}
