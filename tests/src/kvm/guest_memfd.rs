// SPDX-License-Identifier: GPL-2.0

//! `guest_memfd`: memory that belongs to a machine, and that its process may map.

use std::{
    ffi::c_void,
    num::NonZeroUsize,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    slice,
};

use anyhow::{Context, Result};
use kvm_bindings::{kvm_create_guest_memfd, kvm_userspace_memory_region2, KVM_MEM_GUEST_MEMFD};
use kvm_ioctls::VmFd;
use nix::sys::mman::{madvise, mmap, munmap, MapFlags, MmapAdvise, ProtFlags};

use super::{guest::Bank, machine::Slot};

// Flags that the bindings do not have yet: it can be mapped, and all of it is shared with us.
const MMAP: u64 = 1 << 0;
const INIT_SHARED: u64 = 1 << 1;

/// Such memory, mapped.
///
/// # Invariants
///
/// `[address, address + length)` is a readable and writable mapping of all of `file`, to which
/// nothing else in this process refers.
pub struct GuestMemfd {
    file: OwnedFd,
    address: NonNull<c_void>,
    length: NonZeroUsize,
}

// SAFETY: It is plain memory; no thread is special to it.
unsafe impl Send for GuestMemfd {}
// SAFETY: As above; a holder of a `&` only reads.
unsafe impl Sync for GuestMemfd {}

impl GuestMemfd {
    /// Memory of `vm` that holds `content`.
    pub fn with_content(vm: &VmFd, content: &[u8]) -> Result<Self> {
        let length = NonZeroUsize::new(content.len()).context("no content")?;
        let request = kvm_create_guest_memfd {
            size: content.len() as u64,
            flags: MMAP | INIT_SHARED,
            ..Default::default()
        };
        let fd = vm
            .create_guest_memfd(request)
            .context("KVM_CREATE_GUEST_MEMFD")?;
        // SAFETY: The descriptor is new, so nobody else owns it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: A new mapping at an address that the kernel chooses touches nothing of ours.
        let address = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0) };
        // INVARIANT: The mapping is new.
        let mut memory = Self {
            file,
            address: address.context("mmap of guest_memfd")?,
            length,
        };
        memory.bytes_mut().copy_from_slice(content);
        Ok(memory)
    }

    /// `madvise(MADV_MERGEABLE)`.
    pub fn advise_mergeable(&self) -> Result<()> {
        // SAFETY: The mapping is ours, and the advice changes no content.
        unsafe { madvise(self.address, self.length.get(), MmapAdvise::MADV_MERGEABLE) }
            .context("madvise(MADV_MERGEABLE)")
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariant this is writable memory, borrowed through `&mut self`.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr().cast(), self.length.get()) }
    }
}

impl Bank for GuestMemfd {
    fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariant this is readable memory, borrowed through `self`.
        unsafe { slice::from_raw_parts(self.address.as_ptr().cast(), self.length.get()) }
    }

    fn len(&self) -> usize {
        self.length.get()
    }

    unsafe fn give_to(&self, vm: &VmFd, slot: Slot) -> Result<()> {
        let region = kvm_userspace_memory_region2 {
            slot: slot.number,
            flags: KVM_MEM_GUEST_MEMFD,
            guest_phys_addr: slot.guest_address,
            memory_size: self.length.get() as u64,
            userspace_addr: self.address() as u64,
            guest_memfd: self.file.as_raw_fd() as u32,
            ..Default::default()
        };
        // SAFETY: By this function's own requirements.
        unsafe { vm.set_user_memory_region2(region) }
            .context("KVM_SET_USER_MEMORY_REGION2 with guest_memfd")
    }
}

impl Drop for GuestMemfd {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours by the type invariant and is not used again.
        unsafe { munmap(self.address, self.length.get()) }.expect("munmap of guest_memfd");
    }
}
