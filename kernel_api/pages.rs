// SPDX-License-Identifier: GPL-2.0

//! Memory by the page.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use core::{
    alloc::Layout,
    ptr::{
        self,
        NonNull, //
    }, //
};
use kernel::{
    alloc::{
        flags::{
            __GFP_NORETRY,
            __GFP_ZERO, //
        },
        AllocError,
        Allocator,
        Flags,
        NumaNode, //
    },
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// The page allocator, for up to a page.
///
/// `kmalloc()` takes memory for objects of a page from slabs of several, and keeps a slab as long as
/// one of them is in use. Pages from here go back at once. On the other hand, kmemleak finds
/// no pointers in it, so it is for values that have none to memory of their own.
pub(crate) struct Pages;

// SAFETY: A page is valid for reads and writes, and aligned to its size, until it is freed. Memory
// is moved by no call: what fits into a page stays where it is, and nothing else is granted.
unsafe impl Allocator for Pages {
    const MIN_ALIGN: usize = PAGE_SIZE;

    unsafe fn realloc(
        old: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
        _: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() > PAGE_SIZE || layout.align() > PAGE_SIZE {
            return Err(AllocError);
        }
        let start = match (old.filter(|_| old_layout.size() != 0), layout.size()) {
            (None, 0) => nowhere(layout),
            (None, _) => new_page(flags),
            (Some(old), 0) => {
                // SAFETY: By the requirements of this function it is a page of ours that nobody
                // uses any more.
                unsafe { bindings::free_pages(old.as_ptr() as usize, 0) };
                nowhere(layout)
            }
            (old, _) => old,
        };
        let start = start.ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(start, layout.size()))
    }
}

/// Where a value without bytes may stand.
fn nowhere(layout: Layout) -> Option<NonNull<u8>> {
    NonNull::new(ptr::without_provenance_mut(layout.align()))
}

fn new_page(flags: Flags) -> Option<NonNull<u8>> {
    // SAFETY: The flags say whether the function sleeps, and it asks for nothing else.
    let address = unsafe { bindings::__get_free_page(gfp(flags)) };
    NonNull::new(ptr::with_exposed_provenance_mut(address))
}

/// The part of `flags` that matters here, as C has it: [`Flags`] do not give their bits away.
fn gfp(flags: Flags) -> bindings::gfp_t {
    let wait = match flags.contains(GFP_KERNEL) {
        true => bindings::GFP_KERNEL,
        false => bindings::GFP_NOWAIT,
    };
    let modifiers = [
        (__GFP_ZERO, bindings::__GFP_ZERO),
        (__GFP_NORETRY, bindings::__GFP_NORETRY),
        (__GFP_NOWARN, bindings::__GFP_NOWARN),
    ];
    let wanted = modifiers
        .into_iter()
        .filter(|(flag, _)| flags.contains(*flag));
    wanted.fold(wait, |all, (_, bits)| all | bits)
}

#[kernel::macros::kunit_tests(ksm_rs_pages)]
mod tests {
    use super::*;
    use kernel::alloc::Box;

    #[test]
    fn what_fits_into_a_page_gets_one() -> Result {
        let mut full = Box::<[u8; PAGE_SIZE], Pages>::new([7; PAGE_SIZE], GFP_KERNEL)?;
        let small = Box::<u64, Pages>::new(9, GFP_NOWAIT)?;
        full[PAGE_SIZE - 1] = 8;
        assert!(full[0] == 7 && full[PAGE_SIZE - 1] == 8 && *small == 9);
        assert_eq!((&raw const *small) as usize % PAGE_SIZE, 0);
        Ok(())
    }

    #[test]
    fn what_can_be_done_without_kills_nobody() {
        assert_eq!(gfp(GFP_KERNEL), bindings::GFP_KERNEL);
        let expected = bindings::GFP_KERNEL | bindings::__GFP_NORETRY | bindings::__GFP_NOWARN;
        let dispensable = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN;
        assert_eq!(gfp(dispensable), expected);
        assert_eq!(
            gfp(dispensable | __GFP_ZERO),
            expected | bindings::__GFP_ZERO
        );
        assert_eq!(gfp(GFP_NOWAIT), bindings::GFP_NOWAIT);
    }

    #[test]
    fn what_does_not_fit_gets_none() {
        let layout = Layout::new::<[u8; PAGE_SIZE + 1]>();
        assert!(Pages::alloc(layout, GFP_KERNEL, NumaNode::NO_NODE).is_err());
    }

    #[test]
    fn memory_is_zeroed_on_demand() -> Result {
        let layout = Layout::new::<[u8; PAGE_SIZE]>();
        for _ in 0..16 {
            let page = Pages::alloc(layout, GFP_KERNEL | __GFP_ZERO, NumaNode::NO_NODE)?;
            // SAFETY: It was just allocated, and is used by nobody else.
            let is_zeroed = unsafe { page.as_ref() }.iter().all(|byte| *byte == 0);
            // SAFETY: As above.
            unsafe {
                (*page.as_ptr()).fill(1);
                Pages::free(page.cast(), layout);
            }
            assert!(is_zeroed);
        }
        Ok(())
    }
}
