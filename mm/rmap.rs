// SPDX-License-Identifier: GPL-2.0

//! The task of a reverse-mapping walk at each mapping.
//!
//! C header: [`include/linux/rmap.h`](srctree/include/linux/rmap.h)

use crate::mm::{
    anon_vma::{
        AnonVma,
        AnonVmaReadGuard,
        RmapVma, //
    },
    folio::Folio, //
};
use kernel::bindings;

/// Whether a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    Continue,
    Done,
}

/// A `struct rmap_walk_control`.
///
/// # Invariants
///
/// `control` is valid, and its callbacks may be called with a vma whose anon_vma is locked and the
/// folio that the walk is about.
pub(crate) struct RmapWalkControl<'a> {
    control: &'a mut bindings::rmap_walk_control,
}

impl<'a> RmapWalkControl<'a> {
    /// # Safety
    ///
    /// `control` must be what a caller of rmap_walk() has passed, and that call still go on.
    pub(crate) unsafe fn from_raw(control: &'a mut bindings::rmap_walk_control) -> Self {
        // INVARIANT: The caller vouches for it.
        Self { control }
    }

    /// Locks `anon_vma` in the way that the walk allows; `None` ends the walk.
    pub(crate) fn lock<'b>(&mut self, anon_vma: &'b AnonVma) -> Option<AnonVmaReadGuard<'b>> {
        if let Some(guard) = anon_vma.try_read() {
            return Some(guard);
        }
        if self.control.try_lock {
            self.control.contended = true;
            return None;
        }
        Some(anon_vma.read())
    }

    /// Shows the walk's caller that `folio` may be mapped at `address` of `vma`.
    pub(crate) fn visit(&mut self, folio: &Folio, vma: &RmapVma<'_>, address: usize) -> Walk {
        let control = &mut *self.control;
        // SAFETY: By the type invariant the callbacks may be called so.
        unsafe {
            if control
                .invalid_vma
                .is_some_and(|invalid| invalid(vma.as_raw(), control.arg))
            {
                return Walk::Continue;
            }
            let goes_on = control.rmap_one.is_none_or(|rmap_one| {
                rmap_one(folio.as_raw(), vma.as_raw(), address, control.arg)
            });
            if !goes_on || control.done.is_some_and(|done| done(folio.as_raw()) != 0) {
                return Walk::Done;
            }
        }
        Walk::Continue
    }
}
