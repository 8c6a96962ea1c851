// SPDX-License-Identifier: GPL-2.0

//! A host with guests whose memory KSM merges; runs as root inside a VM that has `/dev/kvm`.
//!
//! `ksm-kvm guests` starts guests of our own making, which verify all of their memory and write
//! to it meanwhile. `ksm-kvm qemu` starts QEMU, which boots Linux in each guest.

mod fleet;
mod hypervisor;
mod image;
mod initramfs;
mod inside;
mod qemu;
mod record;
mod scenario;
mod survey;
mod tenant;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use ksm_tests::outcome::exit_code;

#[derive(Parser)]
#[command(about = "Merges the memory of guests under KVM and verifies every byte of it")]
enum Command {
    /// Guests of our own making.
    Guests(scenario::Options),
    /// Guests that run Linux in QEMU.
    Qemu(qemu::Options),
    /// What such a guest runs as its first program.
    #[command(hide = true)]
    Inside(inside::Options),
}

fn run(command: &Command) -> Result<()> {
    match command {
        Command::Guests(options) => scenario::run(options),
        Command::Qemu(options) => qemu::run(options),
        Command::Inside(options) => inside::run(options),
    }
}

fn main() -> ExitCode {
    exit_code(run(&Command::parse()))
}
