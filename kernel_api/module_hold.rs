// SPDX-License-Identifier: GPL-2.0

//! Keeping the module from being unloaded.
//!
//! C header: [`include/linux/module.h`](srctree/include/linux/module.h)

use kernel::{
    bindings,
    ThisModule, //
};

/// A reference to this module, which cannot be unloaded as long as this lives.
///
/// # Invariants
///
/// A reference to the module was taken for this.
pub(crate) struct ModuleHold(&'static ThisModule);

impl ModuleHold {
    /// Takes a reference; there is none if the module is being unloaded.
    pub(crate) fn new(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: This code is part of the module, so that it is there.
        let is_taken = unsafe { bindings::try_module_get(module.as_ptr()) };
        // INVARIANT: The reference was just taken.
        is_taken.then_some(Self(module))
    }
}

impl Drop for ModuleHold {
    fn drop(&mut self) {
        // SAFETY: By the type invariant there is a reference, which goes with this. The thread or
        // system call that runs this code keeps the module beyond it.
        unsafe { bindings::module_put(self.0.as_ptr()) };
    }
}
