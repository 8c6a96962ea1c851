// SPDX-License-Identifier: GPL-2.0

//! Stands in for the `kernel` crate in a program: as much of it as the data structures of `ksm_rs`
//! use, under the same names.
//!
//! Memory comes from [`pages`] and from the program's own allocator. [`usage`] counts what was asked
//! for, and can make allocations fail.

pub mod alloc;
pub mod bindings;
pub mod error;
pub mod init;
pub mod page;
mod pages;
pub mod prelude;
pub mod print;
pub mod sync;
pub mod usage;

// The kernel has it as a crate of its own, `pin_init`, and a program can give this crate that name.
pub use init::init_array_from_fn;
pub use ksm_scale_macros as macros;
