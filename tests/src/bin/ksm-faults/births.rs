// SPDX-License-Identifier: GPL-2.0

//! `fork` and `execve` of a process that offers all of its memory.

use std::ffi::CString;

use anyhow::{bail, ensure, Context, Result};
use ksm_tests::{faults::Fuse, merge_any, pattern, peer::Peer, region::Region};
use nix::{
    errno::Errno,
    sys::{
        ptrace,
        signal::Signal,
        wait::{waitpid, WaitStatus},
    },
    unistd::{execv, fork, ForkResult, Pid},
};

use crate::{
    attempt::{in_child, Attempt, Ending},
    entry::Entry,
    memory::{Twins, PAGES},
};

/// The argument that makes this program check what an `execve` has left.
pub const AFTER_EXEC: &str = "AFTER-EXEC";

/// The module's part fails with ENOMEM. For lack of memory the rest of the kernel may also not find
/// the program in proc, not recognise it or its loader, or have no room for its arguments.
const EXEC_ERRORS: &[Errno] = &[
    Errno::ENOMEM,
    Errno::EAGAIN,
    Errno::E2BIG,
    Errno::ENOEXEC,
    Errno::ENOENT,
    Errno::ELIBBAD,
];

pub fn entries() -> Vec<Entry> {
    vec![
        Entry::new("fork of a merge-any process", fork_merging),
        Entry::new("execve of a merge-any process", exec_merging),
    ]
}

fn fork_merging(nth: u32) -> Result<Attempt> {
    in_child(|_| {
        merge_any::set(true)?;
        let twins = Twins::merged(Region::with_content)?;
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || fork_verifier(&twins))?;
        if let Ok(child) = result {
            expect_good_end(child)?;
        }
        twins.verify()?;
        expect_good_end(fork_verifier(&twins).context("fork")?)?;
        Attempt::new(&result, went_off, &[Errno::ENOMEM, Errno::EAGAIN])
    })
}

/// Forks a process that ends well if its copy of everything is right.
fn fork_verifier(twins: &Twins) -> nix::Result<Pid> {
    // SAFETY: There are no other threads.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let good = twins.verify().is_ok() && merge_any::get() == Ok(true);
            std::process::exit((!good).into())
        }
    }
}

fn expect_good_end(child: Pid) -> Result<()> {
    match waitpid(child, None).context("waitpid")? {
        WaitStatus::Exited(_, 0) => Ok(()),
        status => bail!("the child ended with {status:?}"),
    }
}

fn exec_merging(nth: u32) -> Result<Attempt> {
    let program = CString::new("/proc/self/exe")?;
    let arguments = [CString::new("ksm-faults")?, CString::new(AFTER_EXEC)?];
    let mut peer = Peer::fork(|link| {
        merge_any::set(true)?;
        let content = pattern::pages(4, PAGES);
        let region = Region::with_content(&content)?;
        // The new program stops before its first instruction.
        ptrace::traceme().context("PTRACE_TRACEME")?;
        let fuse = Fuse::of_this_thread()?;
        let (result, went_off) = fuse.during(nth, || execv(&program, &arguments))?;
        region.verify(&content)?;
        ensure!(merge_any::get()?, "no merge-any process any more");
        link.send(Attempt::new(&result, went_off, EXEC_ERRORS)?)
    })?;
    let attempt = await_exec(&mut peer)?;
    // It is reaped.
    std::mem::forget(peer);
    Ok(attempt)
}

fn await_exec(peer: &mut Peer) -> Result<Attempt> {
    let killed = Attempt {
        ending: Ending::Killed,
        went_off: true,
    };
    loop {
        match waitpid(peer.pid(), None).context("waitpid")? {
            WaitStatus::Stopped(child, Signal::SIGTRAP) => {
                let went_off = Fuse::of(child)?.put_out()?;
                ptrace::detach(child, None).context("PTRACE_DETACH")?;
                expect_good_end(child).context("after execve")?;
                return Ok(Attempt {
                    ending: Ending::Done,
                    went_off,
                });
            }
            WaitStatus::Stopped(child, signal) => {
                ptrace::cont(child, signal).context("PTRACE_CONT")?
            }
            WaitStatus::Exited(_, 0) => return peer.receive(),
            WaitStatus::Exited(..) => {
                peer.receive::<Attempt>()?;
                bail!("the process has failed");
            }
            WaitStatus::Signaled(_, Signal::SIGKILL | Signal::SIGSEGV, _) => return Ok(killed),
            status => bail!("execve ended with {status:?}"),
        }
    }
}

/// What this program does after an `execve`.
pub fn after_exec() -> Result<()> {
    ensure!(merge_any::get()?, "no merge-any process any more");
    Ok(())
}
