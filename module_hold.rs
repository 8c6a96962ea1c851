// SPDX-License-Identifier: GPL-2.0

//! Keeping the module from being unloaded.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use kernel::{
    bindings,
    ThisModule, //
};

/// References to this module.
pub(crate) struct ModuleHold(&'static ThisModule);

impl ModuleHold {
    pub(crate) fn new(module: &'static ThisModule) -> Self {
        Self(module)
    }

    /// Takes a reference; fails if the module is being unloaded.
    pub(crate) fn hold(&self) -> bool {
        // SAFETY: This code is part of the module, so that it is there.
        unsafe { bindings::try_module_get(self.0.as_ptr()) }
    }

    /// Gives up a reference that was taken by [`ModuleHold::hold`].
    pub(crate) fn release(&self) {
        // SAFETY: As above; the thread or system call that runs this code keeps the module beyond
        // this reference.
        unsafe { bindings::module_put(self.0.as_ptr()) };
    }
}
