// SPDX-License-Identifier: GPL-2.0

//! Allocators that stand for those of the kernel, with the memory of the program.

use super::{AllocError, Allocator, Flags, NumaNode};
use crate::usage;
use core::{alloc::Layout, ptr::NonNull};

/// Stands for `kmalloc()`.
pub struct Kmalloc;

/// Stands for `kvmalloc()`, which is for [`Vec`](super::Vec) only here.
pub struct KVmalloc;

// SAFETY: The program's allocator keeps memory valid and where it is; it is not asked to resize.
unsafe impl Allocator for Kmalloc {
    const MIN_ALIGN: usize = 8;

    unsafe fn realloc(
        old: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        _: Flags,
        _: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError> {
        match old {
            None if !usage::admit(layout.size()) => Err(AllocError),
            None => {
                assert!(layout.size() > 0);
                // SAFETY: The layout has a size.
                let new = NonNull::new(unsafe { std::alloc::alloc(layout) }).ok_or(AllocError)?;
                Ok(NonNull::slice_from_raw_parts(new, layout.size()))
            }
            Some(old) => {
                assert_eq!(layout.size(), 0);
                // SAFETY: The caller vouches for it.
                unsafe { std::alloc::dealloc(old.as_ptr(), old_layout) };
                Ok(NonNull::slice_from_raw_parts(NonNull::dangling(), 0))
            }
        }
    }
}
