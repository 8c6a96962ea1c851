// SPDX-License-Identifier: GPL-2.0

//! Processes, by their numbers.
//!
//! C header: [`include/linux/pid.h`](srctree/include/linux/pid.h),
//! [`include/linux/sched/mm.h`](srctree/include/linux/sched/mm.h)

use crate::mm::address_space::UserMm;
use core::ptr::NonNull;
use kernel::{
    bindings,
    mm::MmWithUserAsync,
    sync::aref::ARef,
    task::Task, //
};

/// The process with the number `pid` in the caller's PID namespace, if there is one.
fn find(pid: i32) -> Option<ARef<Task>> {
    // SAFETY: The functions take any number, and no process; the reference to the number is given
    // back, and that to the process goes to the `ARef`, whose type is a transparent wrapper.
    unsafe {
        let number = bindings::find_get_pid(pid);
        let task = bindings::get_pid_task(number, bindings::pid_type_PIDTYPE_PID);
        bindings::put_pid(number);
        NonNull::new(task.cast()).map(|task| ARef::from_raw(task))
    }
}

/// The address space of the process with the number `pid` in the caller's PID namespace. A thread of
/// the kernel has none, nor has a process that has ended.
pub(crate) fn address_space_of(pid: i32) -> Option<UserMm> {
    let task = find(pid)?;
    // SAFETY: The process is alive; the reference to its address space goes to the `ARef`, whose
    // type is a transparent wrapper.
    unsafe {
        let mm = bindings::get_task_mm(task.as_ptr());
        NonNull::new(mm.cast::<MmWithUserAsync>()).map(|mm| ARef::from_raw(mm))
    }
}
