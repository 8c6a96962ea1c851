// SPDX-License-Identifier: GPL-2.0

//! Error numbers.

use crate::alloc::AllocError;

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(i32);

impl Error {
    const fn new(number: i32) -> Self {
        Self(number)
    }
}

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        code::ENOMEM
    }
}

impl From<core::convert::Infallible> for Error {
    fn from(never: core::convert::Infallible) -> Self {
        match never {}
    }
}

/// The result of a function of the kernel.
pub type Result<T = (), E = Error> = core::result::Result<T, E>;

/// The error numbers that the sources name.
pub mod code {
    use super::Error;

    /// Out of memory.
    pub const ENOMEM: Error = Error::new(libc::ENOMEM);
    /// Busy.
    pub const EBUSY: Error = Error::new(libc::EBUSY);
    /// Invalid argument.
    pub const EINVAL: Error = Error::new(libc::EINVAL);
    /// There is none.
    pub const ENOENT: Error = Error::new(libc::ENOENT);
    /// No space left.
    pub const ENOSPC: Error = Error::new(libc::ENOSPC);
}
