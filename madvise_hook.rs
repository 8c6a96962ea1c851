// SPDX-License-Identifier: GPL-2.0

//! The functions that mm calls: by `madvise`, `prctl`, fork, exec and exit, and by code of mm
//! that meets a KSM page.
//!
//! The kernel's part keeps the flags of vmas and address spaces, and works without this module;
//! here is what it passes on.

use crate::{
    following::Following,
    ksmd::Ksm,
    merging::unmerge::unmerge_range,
    mm::{
        folio::Folio,
        ksm_page::{
            ksm_folio::KsmFolio,
            rmap_walk::rmap_walk, //
        },
        rmap::RmapWalkControl,
        vma::{
            LockedVma,
            MmapLock, //
        }, //
    },
    rmap_item::BYTES_PER_PAGE, //
};
use core::ptr;
use kernel::{
    bindings,
    error::to_result,
    mm::{
        Mm,
        MmWithUser, //
    },
    prelude::*,
    sync::Arc, //
};

/// As long as this lives, mm calls this module.
///
/// # Invariants
///
/// [`Registration::OPS`] is registered with a pointer to `_ksm`.
pub(crate) struct Registration<F: Following> {
    _ksm: Arc<Ksm<F>>,
}

impl<F: Following> Registration<F> {
    const OPS: &'static bindings::ksm_ops = &bindings::ksm_ops {
        rmap_item_size: BYTES_PER_PAGE,
        enter: Some(enter::<F>),
        exit: Some(exit::<F>),
        unmerge: Some(unmerge),
        part: Some(part::<F>),
        rmap_walk: Some(walk),
        migrate: Some(migrate),
        unmerging: Some(unmerging::<F>),
    };

    /// Registers, and adopts the address spaces that have asked for merging before.
    pub(crate) fn new(ksm: Arc<Ksm<F>>) -> Result<Self> {
        let data = ptr::from_ref::<Ksm<F>>(&ksm).cast_mut().cast();
        // SAFETY: The operations are a static, and expect a pointer to `Ksm`, which is kept until
        // they are not called any more.
        to_result(unsafe { bindings::ksm_register_ops(Self::OPS, data) })?;
        // INVARIANT: It was just registered.
        Ok(Self { _ksm: ksm })
    }
}

impl<F: Following> Drop for Registration<F> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the operations are registered. There is no KSM page any
        // more: nodes hold the module.
        unsafe { bindings::ksm_unregister_ops() };
    }
}

/// # Safety
///
/// `data` must be the pointer with which [`Registration::OPS`] was registered, and this be called by it.
unsafe fn ksm<'a, F: Following>(data: *mut c_void) -> &'a Ksm<F> {
    // SAFETY: The caller vouches for it.
    unsafe { &*data.cast() }
}

/// # Safety
///
/// To be called through [`Registration::OPS`], with an mm that the caller keeps.
unsafe extern "C" fn enter<F: Following>(data: *mut c_void, mm: *mut bindings::mm_struct) -> c_int {
    // SAFETY: The caller vouches for both.
    let (ksm, mm) = unsafe { (ksm::<F>(data), Mm::from_raw(mm)) };
    match ksm.enter(mm) {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// To be called through [`Registration::OPS`], with an mm that the caller keeps.
unsafe extern "C" fn exit<F: Following>(data: *mut c_void, mm: *mut bindings::mm_struct) {
    // The scan touches page tables only of an mm that it is a user of, so there is nothing to
    // wait for.
    // SAFETY: The caller vouches for both.
    let (ksm, mm) = unsafe { (ksm::<F>(data), Mm::from_raw(mm)) };
    ksm.shared.registry.exit(mm);
}

/// # Safety
///
/// To be called through [`Registration::OPS`], with the mmap lock of the vma held for writing.
unsafe extern "C" fn unmerge(
    _data: *mut c_void,
    vma: *mut bindings::vm_area_struct,
    start: c_ulong,
    end: c_ulong,
) -> c_int {
    // SAFETY: The caller holds the mmap lock for writing.
    let vma = unsafe { LockedVma::from_raw(vma, MmapLock::Write) };
    match unmerge_range(vma, start..end, GFP_KERNEL) {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// To be called through [`Registration::OPS`], with an mm that the caller is a user of, and whose domain is being
/// changed.
unsafe extern "C" fn part<F: Following>(data: *mut c_void, mm: *mut bindings::mm_struct) -> c_int {
    // SAFETY: The caller vouches for both.
    let (ksm, mm) = unsafe { (ksm::<F>(data), MmWithUser::from_raw(mm)) };
    match ksm.part(mm) {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// # Safety
///
/// To be called through [`Registration::OPS`], with a locked folio and what rmap_walk() was called with.
unsafe extern "C" fn walk(
    _data: *mut c_void,
    folio: *mut bindings::folio,
    control: *mut bindings::rmap_walk_control,
) {
    // SAFETY: The caller holds the folio and its lock, and the control.
    let (folio, mut control) = unsafe {
        (
            KsmFolio::assume_locked(Folio::from_raw(folio)),
            RmapWalkControl::from_raw(&mut *control),
        )
    };
    if let Some(folio) = folio {
        rmap_walk(&folio, &mut control);
    }
}

/// # Safety
///
/// To be called through [`Registration::OPS`], with two locked folios, `new` being the copy of `old`.
unsafe extern "C" fn migrate(
    _data: *mut c_void,
    new: *mut bindings::folio,
    old: *mut bindings::folio,
) {
    // SAFETY: The caller holds both folios and their locks; the copy has the same mapping.
    unsafe {
        if let Some(old) = KsmFolio::assume_locked(Folio::from_raw(old)) {
            old.migrate(Folio::from_raw(new));
        }
    }
}

/// # Safety
///
/// To be called through [`Registration::OPS`].
unsafe extern "C" fn unmerging<F: Following>(data: *mut c_void) -> bool {
    // SAFETY: The caller vouches for it.
    unsafe { ksm::<F>(data) }.is_unmerging()
}
