// SPDX-License-Identifier: GPL-2.0

//! The tracepoints of KSM.
//!
//! C header: [`include/trace/events/ksm.h`](srctree/include/trace/events/ksm.h)

use crate::mm::{
    ksm_page::ids::ItemId, //
    page::Page,
};
use kernel::{
    bindings,
    error::Error,
    ffi::{
        c_int,
        c_void, //
    },
    mm::Mm, //
};

/// An item as traces show it: its handle stands where others have an address.
fn shown(item: ItemId) -> *mut c_void {
    core::ptr::without_provenance_mut(item.raw() as usize)
}

fn errno(result: &Result<(), Error>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => error.to_errno(),
    }
}

/// A full scan begins.
pub(crate) fn start_scan(full_scans: usize, items: usize) {
    // SAFETY: The arguments are shown, not followed.
    unsafe { bindings::trace_ksm_start_scan(full_scans as c_int, items as u32) };
}

/// A full scan has ended.
pub(crate) fn stop_scan(full_scans: usize, items: usize) {
    // SAFETY: The arguments are shown, not followed.
    unsafe { bindings::trace_ksm_stop_scan(full_scans as c_int, items as u32) };
}

/// A page was merged with the zero page `pfn`, or was not.
pub(crate) fn merge_one_page(
    pfn: usize,
    item: Option<ItemId>,
    mm: &Mm,
    result: &Result<(), Error>,
) {
    // SAFETY: The arguments are shown, not followed.
    unsafe {
        bindings::trace_ksm_merge_one_page(
            pfn,
            item.map_or(core::ptr::null_mut(), shown),
            mm.as_raw().cast(),
            errno(result),
        )
    };
}

/// A page was merged with `target`, or became a KSM page itself (`None`), or was not.
pub(crate) fn merge_with_ksm_page(
    target: Option<&Page>,
    pfn: usize,
    item: ItemId,
    mm: &Mm,
    result: &Result<(), Error>,
) {
    let target = target.map_or(core::ptr::null_mut(), |page| page.as_raw().cast());
    // SAFETY: The arguments are shown, not followed.
    unsafe {
        bindings::trace_ksm_merge_with_ksm_page(
            target,
            pfn,
            shown(item),
            mm.as_raw().cast(),
            errno(result),
        )
    };
}

/// A stable node is removed.
pub(crate) fn remove_ksm_page(pfn: usize) {
    // SAFETY: The arguments are shown, not followed.
    unsafe { bindings::trace_ksm_remove_ksm_page(pfn) };
}

/// An item loses its stable node, which is removed.
pub(crate) fn remove_rmap_item(pfn: usize, item: ItemId, mm: usize) {
    // SAFETY: The arguments are shown, not followed.
    unsafe {
        bindings::trace_ksm_remove_rmap_item(
            pfn,
            shown(item),
            core::ptr::without_provenance_mut(mm),
        )
    };
}

/// The advisor has set `pages_to_scan`.
pub(crate) fn advisor(scan_time: usize, pages_to_scan: usize, cpu_percent: usize) {
    // SAFETY: The arguments are shown, not followed.
    unsafe { bindings::trace_ksm_advisor(scan_time as i64, pages_to_scan, cpu_percent as u32) };
}
