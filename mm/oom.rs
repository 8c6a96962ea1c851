// SPDX-License-Identifier: GPL-2.0

//! Whom to kill when memory runs out.
//!
//! C header: [`include/linux/oom.h`](srctree/include/linux/oom.h)

use kernel::{
    bindings,
    types::NotThreadSafe, //
};

/// As long as this lives, the current task is killed first: what it does takes the memory.
pub(crate) struct Origin(NotThreadSafe);

impl Origin {
    pub(crate) fn new() -> Self {
        // SAFETY: The function changes a flag of the current task.
        unsafe { bindings::ksm_set_oom_origin(true) };
        Self(NotThreadSafe)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // SAFETY: As above; this is the same task.
        unsafe { bindings::ksm_set_oom_origin(false) };
    }
}
