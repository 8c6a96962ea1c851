// SPDX-License-Identifier: GPL-2.0

//! userfaultfd: memory whose pages a program itself provides and protects.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use anyhow::{ensure, Context, Result};
use nix::{
    errno::Errno,
    poll::{poll, PollFd, PollFlags, PollTimeout},
};

use crate::{region::Region, PAGE_SIZE};

/// The structures of `linux/userfaultfd.h`; that of `UFFDIO_RWPROTECT` is `Protect`, too.
mod abi {
    pub use linux_raw_sys::general::{
        uffdio_api as Api, uffdio_copy as Copy, uffdio_range as Range, uffdio_register as Register,
        uffdio_writeprotect as Protect,
    };

    /// `struct uffd_msg`, as it is for a fault.
    #[repr(C)]
    #[derive(Default)]
    pub struct Message {
        pub event: u64,
        pub flags: u64,
        pub address: u64,
        pub feature: u64,
    }

    nix::ioctl_readwrite!(api, 0xaa, 0x3f, Api);
    nix::ioctl_readwrite!(register, 0xaa, 0x00, Register);
    nix::ioctl_readwrite!(copy, 0xaa, 0x03, Copy);
    nix::ioctl_readwrite!(write_protect, 0xaa, 0x06, Protect);
    nix::ioctl_readwrite!(access_protect, 0xaa, 0x09, Protect);
}

const API: u64 = 0xaa;

/// Milliseconds to wait for a fault, before it is time to look whether there will be any.
const FAULT_WAIT: u8 = 50;
const PROTECT: u64 = 1;

/// One of the two calls that protect a range, or end that.
struct ProtectCall {
    ioctl: unsafe fn(libc::c_int, *mut abi::Protect) -> nix::Result<libc::c_int>,
    name: &'static str,
}

const WRITES: ProtectCall = ProtectCall {
    ioctl: abi::write_protect,
    name: "UFFDIO_WRITEPROTECT",
};

const ACCESSES: ProtectCall = ProtectCall {
    ioctl: abi::access_protect,
    name: "UFFDIO_RWPROTECT",
};

/// The feature without which there is no [`Mode::Access`].
const ACCESS_FEATURE: u64 = 1 << 17;

/// The event that is a fault; the byte alone is defined.
const PAGE_FAULT: u8 = 0x12;

/// In the flags of a fault: somebody writes to what is protected.
const FAULT_WRITE_PROTECT: u64 = 1 << 1;

/// Somebody reads or writes what is protected from either.
const FAULT_ACCESS: u64 = 1 << 3;

/// A fault that somebody waits to have resolved.
#[derive(Debug)]
pub struct Fault {
    /// The page's address.
    pub page: usize,
    /// What it is about.
    pub mode: Mode,
}

/// What faults are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Pages that are not there.
    Missing = 1,
    /// Writes to pages that were protected.
    WriteProtect = 2,
    /// Any access to pages that were protected.
    Access = 8,
}

impl Mode {
    fn of(flags: u64) -> Self {
        if flags & FAULT_ACCESS != 0 {
            Self::Access
        } else if flags & FAULT_WRITE_PROTECT != 0 {
            Self::WriteProtect
        } else {
            Self::Missing
        }
    }
}

/// One such file descriptor.
pub struct UserFault(OwnedFd);

impl UserFault {
    /// A new one, or nothing if the kernel has none.
    pub fn new() -> Result<Option<Self>> {
        Self::with_features(0)
    }

    /// One for [`Mode::Access`], or nothing if the kernel has none.
    pub fn for_access() -> Result<Option<Self>> {
        Self::with_features(ACCESS_FEATURE)
    }

    fn with_features(features: u64) -> Result<Option<Self>> {
        // Only such a descriptor can be polled.
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: The call takes flags only.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) });
        let fd = match fd {
            Err(Errno::ENOSYS) => return Ok(None),
            other => other.context("userfaultfd")?,
        };
        // SAFETY: The descriptor is new, so nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut api = abi::Api {
            api: API,
            features,
            ioctls: 0,
        };
        // SAFETY: The structure is what this call takes.
        match unsafe { abi::api(fd.as_raw_fd(), &mut api) } {
            Err(Errno::EINVAL) if features != 0 => Ok(None),
            other => other.map(|_| Some(Self(fd))).context("UFFDIO_API"),
        }
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
        self.copy(region.address(), content)
    }

    /// Waits a moment for a fault.
    pub fn fault(&self) -> Result<Option<Fault>> {
        let mut waiting = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(FAULT_WAIT)).context("poll of userfaultfd")? == 0 {
            return Ok(None);
        }
        let mut message = abi::Message::default();
        let size = size_of::<abi::Message>();
        // SAFETY: There is room for the one message asked for, and any bits are a message.
        let length = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut message).cast(), size) };
        let length = match Errno::result(length) {
            // Who waited does not wait any more.
            Err(Errno::EAGAIN) => return Ok(None),
            other => other.context("read of userfaultfd")?,
        };
        ensure!(length as usize == size, "half a message of userfaultfd");
        let [event, ..] = message.event.to_ne_bytes();
        ensure!(event == PAGE_FAULT, "an event {event:#x} of userfaultfd");
        Ok(Some(Fault {
            page: message.address as usize / PAGE_SIZE * PAGE_SIZE,
            mode: Mode::of(message.flags),
        }))
    }

    /// Provides a page that is missing, and lets those go on who wait for it.
    pub fn provide(&self, page: usize, content: &[u8]) -> Result<()> {
        assert_eq!(content.len(), PAGE_SIZE);
        self.copy(page, content)
    }

    /// Lets everybody write to a page again, and those go on who wait for that.
    pub fn allow_writes(&self, page: usize) -> Result<()> {
        self.set_protection(WRITES, page_range(page), false)
    }

    /// Protects a region from writes, or ends that.
    pub fn protect(&self, region: &Region, on: bool) -> Result<()> {
        self.set_protection(WRITES, range_of(region), on)
    }

    /// Lets everybody have access to a page again, and those go on who wait for that.
    pub fn allow_access(&self, page: usize) -> Result<()> {
        self.set_protection(ACCESSES, page_range(page), false)
    }

    /// Protects a region from any access, or ends that.
    pub fn keep_out(&self, region: &Region, on: bool) -> Result<()> {
        self.set_protection(ACCESSES, range_of(region), on)
    }

    fn set_protection(&self, call: ProtectCall, range: abi::Range, on: bool) -> Result<()> {
        let mode = if on { PROTECT } else { 0 };
        let mut protect = abi::Protect { range, mode };
        // SAFETY: The structure is what both calls take; they change no content.
        unsafe { (call.ioctl)(self.0.as_raw_fd(), &mut protect) }
            .map(drop)
            .context(call.name)
    }

    fn copy(&self, address: usize, content: &[u8]) -> Result<()> {
        let mut copy = abi::Copy {
            dst: address as u64,
            src: content.as_ptr() as u64,
            len: content.len() as u64,
            mode: 0,
            copy: 0,
        };
        // SAFETY: The kernel accepts only pages that are registered and not there yet, so that
        // nobody can have read what they hold.
        unsafe { abi::copy(self.0.as_raw_fd(), &mut copy) }
            .map(drop)
            .context("UFFDIO_COPY")
    }
}

fn page_range(page: usize) -> abi::Range {
    abi::Range {
        start: page as u64,
        len: PAGE_SIZE as u64,
    }
}

fn range_of(region: &Region) -> abi::Range {
    abi::Range {
        start: region.address() as u64,
        len: region.len() as u64,
    }
}
