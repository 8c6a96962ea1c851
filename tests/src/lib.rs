// SPDX-License-Identifier: GPL-2.0

//! What the test programs, the demonstration and the benchmark of `ksm_rs` share.
//!
//! Everything here runs as root inside a VM and drives KSM the way real programs do: through
//! `madvise`, `prctl`, `/sys/kernel/mm/ksm` and `/proc`. Nothing knows whether the kernel's own
//! KSM or `ksm_rs` is at work, so the same program can be run against both.

pub mod cgroup;
pub mod control_file;
pub mod corpus;
pub mod damon;
pub mod delays;
pub mod domain;
pub mod faults;
pub mod folio_size;
pub mod idle_pages;
pub mod kernel_log;
pub mod ksm;
pub mod kvm;
pub mod lockup;
pub mod memory_block;
pub mod memory_detail;
pub mod memory_use;
pub mod merge_any;
pub mod module;
pub mod numa;
pub mod outcome;
pub mod own_settings;
pub mod pagemap;
pub mod pattern;
pub mod peer;
pub mod procfs;
pub mod quiet_console;
pub mod region;
pub mod seed;
pub mod sleeper;
pub mod stopwatch;
pub mod swap;
pub mod timer;
pub mod tlb;
pub mod tracing;
pub mod uring;
pub mod userfault;
pub mod wait;

/// Size of a page. All lanes run on x86-64.
pub const PAGE_SIZE: usize = 4096;

/// Bytes in a MiB.
pub const MIB: usize = 1 << 20;
