// SPDX-License-Identifier: GPL-2.0

//! Single pages.
//!
//! A kernel reaches its memory through huge pages of its own map, so here, too, pages are parts of
//! huge ones, as far as the host has such.

use crate::{page::PAGE_SIZE, usage};
use std::{
    ptr,
    sync::{Mutex, PoisonError},
};

/// Bytes that the host is asked for at a time.
const BLOCK: usize = 64 << 20;

/// How huge pages of the host are aligned.
const HUGE: usize = 2 << 20;

/// Pages that are not in use.
struct Free {
    /// The first of a list of pages that were given back, or zero. Each begins with the address of
    /// the next.
    list: usize,
    /// Where the rest of the last block begins, and where that ends.
    fresh: usize,
    end: usize,
    /// How many pages the list has.
    listed: usize,
}

static FREE: Mutex<Free> = Mutex::new(Free {
    list: 0,
    fresh: 0,
    end: 0,
    listed: 0,
});

/// A page, or zero if there is none.
pub(crate) fn get(zeroed: bool) -> usize {
    if !usage::admit(PAGE_SIZE) {
        return 0;
    }
    let page = FREE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if page != 0 {
        usage::count_pages(1);
        if zeroed {
            // SAFETY: The page is nobody else's.
            unsafe { ptr::with_exposed_provenance_mut::<u8>(page).write_bytes(0, PAGE_SIZE) };
        }
    }
    page
}

/// Gives a page back.
///
/// # Safety
///
/// `page` must come from [`get`], and nobody may use it any more.
pub(crate) unsafe fn put(page: usize) {
    usage::count_pages(-1);
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: The page is in nobody's use.
    unsafe { ptr::with_exposed_provenance_mut::<usize>(page).write(free.list) };
    free.list = page;
    free.listed += 1;
}

/// Bytes of pages that were given back.
pub(crate) fn spare_bytes() -> usize {
    FREE.lock().unwrap_or_else(PoisonError::into_inner).listed * PAGE_SIZE
}

impl Free {
    fn take(&mut self) -> usize {
        if self.list != 0 {
            let page = self.list;
            self.listed -= 1;
            // SAFETY: A page in the list begins with the address of the next.
            self.list = unsafe { ptr::with_exposed_provenance::<usize>(page).read() };
            return page;
        }
        if self.fresh == self.end {
            self.fresh = block();
            self.end = self.fresh + if self.fresh == 0 { 0 } else { BLOCK };
        }
        let page = self.fresh;
        if page != 0 {
            self.fresh += PAGE_SIZE;
        }
        page
    }
}

/// A new block, or zero if there is none.
fn block() -> usize {
    // SAFETY: The mapping is at an address that nobody uses.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            BLOCK + HUGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return 0;
    }
    let start = start.expose_provenance().next_multiple_of(HUGE);
    // SAFETY: The range lies in the mapping. The advice is about speed only.
    unsafe {
        libc::madvise(
            ptr::with_exposed_provenance_mut(start),
            BLOCK,
            libc::MADV_HUGEPAGE,
        )
    };
    start
}
