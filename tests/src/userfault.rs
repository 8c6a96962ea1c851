// SPDX-License-Identifier: GPL-2.0

//! userfaultfd: memory whose pages a program itself provides and protects.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::region::Region;

/// The structures of `linux/userfaultfd.h`, under its names.
mod abi {
    #[repr(C)]
    pub struct Api {
        pub api: u64,
        pub features: u64,
        pub ioctls: u64,
    }

    #[repr(C)]
    pub struct Range {
        pub start: u64,
        pub len: u64,
    }

    #[repr(C)]
    pub struct Register {
        pub range: Range,
        pub mode: u64,
        pub ioctls: u64,
    }

    #[repr(C)]
    pub struct Copy {
        pub dst: u64,
        pub src: u64,
        pub len: u64,
        pub mode: u64,
        pub copy: i64,
    }

    #[repr(C)]
    pub struct WriteProtect {
        pub range: Range,
        pub mode: u64,
    }

    nix::ioctl_readwrite!(api, 0xaa, 0x3f, Api);
    nix::ioctl_readwrite!(register, 0xaa, 0x00, Register);
    nix::ioctl_readwrite!(copy, 0xaa, 0x03, Copy);
    nix::ioctl_readwrite!(write_protect, 0xaa, 0x06, WriteProtect);
}

const API: u64 = 0xaa;
const WRITE_PROTECT: u64 = 1;

/// What faults are about.
#[derive(Clone, Copy)]
pub enum Mode {
    /// Pages that are not there.
    Missing = 1,
    /// Writes to pages that were protected.
    WriteProtect = 2,
}

/// One such file descriptor.
pub struct UserFault(OwnedFd);

impl UserFault {
    /// A new one, or nothing if the kernel has none.
    pub fn new() -> Result<Option<Self>> {
        // SAFETY: The call takes flags only.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) });
        let fd = match fd {
            Err(Errno::ENOSYS) => return Ok(None),
            other => other.context("userfaultfd")?,
        };
        // SAFETY: The descriptor is new, so nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut api = abi::Api {
            api: API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: The structure is what this call takes.
        unsafe { abi::api(fd.as_raw_fd(), &mut api) }.context("UFFDIO_API")?;
        Ok(Some(Self(fd)))
    }

    /// Takes charge of a region; tells if the kernel cannot do that for this mode.
    pub fn register(&self, region: &Region, mode: Mode) -> Result<bool> {
        let mut register = abi::Register {
            range: range_of(region),
            mode: mode as u64,
            ioctls: 0,
        };
        // SAFETY: The structure is what this call takes, and the region ours.
        match unsafe { abi::register(self.0.as_raw_fd(), &mut register) } {
            Err(Errno::EINVAL) => Ok(false),
            other => other.map(|_| true).context("UFFDIO_REGISTER"),
        }
    }

    /// Provides all pages of a region that has none.
    pub fn fill(&self, region: &mut Region, content: &[u8]) -> Result<()> {
        assert_eq!(region.len(), content.len());
        let mut copy = abi::Copy {
            dst: region.address() as u64,
            src: content.as_ptr() as u64,
            len: content.len() as u64,
            mode: 0,
            copy: 0,
        };
        // SAFETY: Both ranges have this length, and nothing borrows from the region.
        unsafe { abi::copy(self.0.as_raw_fd(), &mut copy) }
            .map(drop)
            .context("UFFDIO_COPY")
    }

    /// Protects a region from writes, or ends that.
    pub fn protect(&self, region: &Region, on: bool) -> Result<()> {
        let mut protect = abi::WriteProtect {
            range: range_of(region),
            mode: if on { WRITE_PROTECT } else { 0 },
        };
        // SAFETY: The structure is what this call takes, and the region ours.
        unsafe { abi::write_protect(self.0.as_raw_fd(), &mut protect) }
            .map(drop)
            .context("UFFDIO_WRITEPROTECT")
    }
}

fn range_of(region: &Region) -> abi::Range {
    abi::Range {
        start: region.address() as u64,
        len: region.len() as u64,
    }
}
