// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::settings::Setting;

/// Shows and sets Kernel Samepage Merging (KSM).
#[derive(Parser)]
#[command(version)]
pub struct Cli {
    /// Print JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,

    /// The task.
    #[command(subcommand)]
    pub command: Command,
}

/// One task for each.
#[derive(Subcommand)]
pub enum Command {
    /// Changes settings of KSM, in an order in which the kernel takes them.
    ///
    /// All settings are checked before the first one is written, and one that has its value already is
    /// left alone. Prints the settings that have changed.
    Set(Set),

    /// Says what merging would save, whether KSM is on or not.
    ///
    /// Reads the private memory of processes that they have at hand: nothing is allocated or fetched from
    /// swap, and no process is stopped. Needs root, but for processes of one's own.
    Estimate(Estimate),

    /// Says which processes share pages by KSM, and how much, from the frames behind their pages.
    ///
    /// Needs root.
    Sharing(Sharing),

    /// Shows what KSM does, and which processes it saves memory for, until q is pressed.
    ///
    /// Prints lines when its output is not a terminal.
    Top(Top),

    /// Says why pages of a process are not merged.
    ///
    /// Needs root.
    Why {
        /// The process.
        pid: i32,
    },

    /// Prints a file of completions for a shell.
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: Shell,
    },

    /// Writes manual pages of all commands.
    #[command(hide = true)]
    Manuals {
        /// The directory for them, which exists.
        directory: PathBuf,
    },
}

/// Arguments of `ksm set`.
#[derive(Args)]
pub struct Set {
    /// A file of settings, one NAME=VALUE in a line; # begins a comment. Settings on the command line
    /// come before those of the file.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Names are those of the files in /sys/kernel/mm/ksm and /sys/kernel/mm/ksm_rs.
    #[arg(value_name = "NAME=VALUE", required_unless_present = "file")]
    pub settings: Vec<Setting>,
}

/// Arguments of `ksm estimate`.
#[derive(Args)]
pub struct Estimate {
    /// Processes; all of them if there is none.
    #[arg(value_name = "PID")]
    pub pids: Vec<i32>,

    /// Look only at memory that processes have advised KSM to merge.
    #[arg(long)]
    pub advised: bool,

    /// Take at most this share of a CPU.
    #[arg(long, value_name = "PERCENT", default_value_t = 50)]
    pub max_cpu: u32,
}

/// Arguments of `ksm sharing`.
#[derive(Args)]
pub struct Sharing {
    /// Processes; all of them if there is none.
    #[arg(value_name = "PID")]
    pub pids: Vec<i32>,

    /// Draw who shares with whom, in SVG.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// Arguments of `ksm top`.
#[derive(Args)]
pub struct Top {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub interval: f64,

    /// End after so many looks; without a terminal only.
    #[arg(long, value_name = "LOOKS")]
    pub count: Option<u64>,

    /// The order of processes.
    #[arg(long, value_enum, default_value_t = Order::Merged)]
    pub order: Order,
}

/// The order of processes: the largest first; names from A to Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Pages that KSM shares.
    Merged,
    /// Bytes saved, less those of records.
    Profit,
    /// Pages of zeros that KSM has replaced.
    Zero,
    /// Names.
    Name,
    /// Domains, and pages that KSM shares in each.
    Domain,
}
