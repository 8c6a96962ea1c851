// SPDX-License-Identifier: GPL-2.0

//! Guests of our own making, run through `/dev/kvm`.
//!
//! A guest has one virtual CPU, in long mode, and two pieces of memory. Its *head* has page
//! tables, code and tables; its *bank* is filled with whatever a test wants. The guest's code can
//! do two things: compare the checksum of each page with what it must be, and write here and
//! there, keeping account of what the checksums must then be. A model on the host's side does
//! the same to a copy, so all bytes can also be compared from outside.

mod code;
mod guest;
mod guest_memfd;
mod machine;
mod model;

pub use guest::{Bank, Beside, Guest, Job};
pub use guest_memfd::GuestMemfd;
pub use model::{Model, Writes};
