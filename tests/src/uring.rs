// SPDX-License-Identifier: GPL-2.0

//! io_uring, as far as it pins memory for long.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::region::Region;

const REGISTER_BUFFERS: u32 = 0;
const UNREGISTER_BUFFERS: u32 = 1;

/// Size of the structure that `io_uring_setup` takes.
const PARAMETERS_SIZE: usize = 120;

/// A ring that holds the pages of a region for as long as it exists.
pub struct PinningRing(OwnedFd);

impl PinningRing {
    /// Pins the region, for reading and writing; nothing if the kernel has no io_uring.
    pub fn new(region: &Region) -> Result<Option<Self>> {
        let mut parameters = [0u64; PARAMETERS_SIZE / 8];
        // SAFETY: All zeros are good parameters, and there is room for the answer.
        let fd = Errno::result(unsafe {
            libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr())
        });
        let fd = match fd {
            Err(Errno::ENOSYS) => return Ok(None),
            other => other.context("io_uring_setup")?,
        };
        // SAFETY: The descriptor is new, so nobody else owns it.
        let ring = Self(unsafe { OwnedFd::from_raw_fd(fd as i32) });
        let buffer = libc::iovec {
            iov_base: region.address() as *mut _,
            iov_len: region.len(),
        };
        ring.register(REGISTER_BUFFERS, &raw const buffer, 1)
            .context("IORING_REGISTER_BUFFERS")?;
        Ok(Some(ring))
    }

    /// Lets the pages go.
    pub fn release(self) -> Result<()> {
        self.register(UNREGISTER_BUFFERS, std::ptr::null(), 0)
            .context("IORING_UNREGISTER_BUFFERS")
    }

    fn register(&self, what: u32, buffers: *const libc::iovec, count: u32) -> nix::Result<()> {
        // SAFETY: `buffers` has `count` elements, each a range of ours.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.0.as_raw_fd(),
                what,
                buffers,
                count,
            )
        })
        .map(drop)
    }
}
