// SPDX-License-Identifier: GPL-2.0

//! io_uring, as far as it pins memory for long.

use anyhow::{Context, Result};
use io_uring::IoUring;
use nix::errno::Errno;

use crate::region::Region;

/// A ring that holds the pages of a region for as long as it exists.
pub struct PinningRing(IoUring);

impl PinningRing {
    /// Pins the region, for reading and writing; nothing if the kernel has no io_uring.
    pub fn new(region: &Region) -> Result<Option<Self>> {
        let ring = match IoUring::new(1) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOSYS as i32) => return Ok(None),
            other => other.context("io_uring_setup")?,
        };
        let buffer = libc::iovec {
            iov_base: region.address() as *mut _,
            iov_len: region.len(),
        };
        // SAFETY: The kernel itself holds the pages, and no request ever uses them.
        unsafe { ring.submitter().register_buffers(&[buffer]) }
            .context("IORING_REGISTER_BUFFERS")?;
        Ok(Some(Self(ring)))
    }

    /// Lets the pages go.
    pub fn release(self) -> Result<()> {
        let submitter = self.0.submitter();
        submitter
            .unregister_buffers()
            .context("IORING_UNREGISTER_BUFFERS")
    }
}
