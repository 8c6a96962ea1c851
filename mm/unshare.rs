// SPDX-License-Identifier: GPL-2.0

//! Giving an address a private copy of its page again, through the page-fault handler.

use crate::mm::vma::LockedVma;
use kernel::bindings;

/// How the fault handler did.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It did its work, or backed out because something had changed: look again.
    Handled,
    /// There is no page to be had at this address any more.
    Gone,
    /// There was no memory for the copy.
    NoMemory,
}

/// Answers of a fault when there is no page, or the hardware has lost its content.
const NO_PAGE: bindings::vm_fault_t = bindings::vm_fault_reason_VM_FAULT_SIGBUS
    | bindings::vm_fault_reason_VM_FAULT_SIGSEGV
    | bindings::vm_fault_reason_VM_FAULT_HWPOISON
    | bindings::vm_fault_reason_VM_FAULT_HWPOISON_LARGE;

/// Breaks the sharing of the page at `address` of `vma`; sleeps.
pub(crate) fn unshare(vma: LockedVma<'_>, address: usize) -> Fault {
    let flags = bindings::fault_flag_FAULT_FLAG_UNSHARE | bindings::fault_flag_FAULT_FLAG_REMOTE;
    // SAFETY: By its invariant the mmap lock of the vma is held, and is not dropped by a fault
    // that does not allow a retry. No registers belong to the fault.
    let result =
        unsafe { bindings::handle_mm_fault(vma.as_raw(), address, flags, core::ptr::null_mut()) };
    if result & bindings::vm_fault_reason_VM_FAULT_OOM != 0 {
        Fault::NoMemory
    } else if result & NO_PAGE != 0 {
        Fault::Gone
    } else {
        Fault::Handled
    }
}
