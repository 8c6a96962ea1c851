// SPDX-License-Identifier: GPL-2.0

//! Whom to kill when memory runs out.
//!
//! C header: [`include/linux/oom.h`](srctree/include/linux/oom.h)

use kernel::{
    bindings,
    types::NotThreadSafe, //
};

/// As long as this lives, the current task is killed first: what it does takes the memory.
///
/// # Invariants
///
/// The current task is the one that this was made by.
pub(crate) struct Origin(NotThreadSafe);

impl Origin {
    pub(crate) fn new() -> Self {
        // SAFETY: The function changes a flag of the current task.
        unsafe { bindings::set_current_oom_origin() };
        // INVARIANT: It cannot be given to another.
        Self(NotThreadSafe)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // SAFETY: As above; by the type invariant this is the same task.
        unsafe { bindings::clear_current_oom_origin() };
    }
}
