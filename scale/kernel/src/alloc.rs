// SPDX-License-Identifier: GPL-2.0

//! Memory.

pub mod allocator;
mod boxes;
mod vec;

pub use self::{boxes::Box, vec::Vec};
use core::{alloc::Layout, ptr::NonNull};

/// There is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocError;

/// Permissions of an allocation.
#[derive(Clone, Copy, PartialEq)]
pub struct Flags(u32);

impl Flags {
    /// Whether all of `flags` are among these.
    pub fn contains(self, flags: Flags) -> bool {
        self & flags == flags
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl core::ops::BitAnd for Flags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The flags that there are.
pub mod flags {
    use super::Flags;
    use crate::bindings;

    /// See [`bindings::GFP_KERNEL`].
    pub const GFP_KERNEL: Flags = Flags(bindings::GFP_KERNEL);
    /// See [`bindings::GFP_NOWAIT`].
    pub const GFP_NOWAIT: Flags = Flags(bindings::GFP_NOWAIT);
    /// See [`bindings::__GFP_ZERO`].
    pub const __GFP_ZERO: Flags = Flags(bindings::__GFP_ZERO);
    /// See [`bindings::__GFP_NOWARN`].
    pub const __GFP_NOWARN: Flags = Flags(bindings::__GFP_NOWARN);
    /// See [`bindings::__GFP_NORETRY`].
    pub const __GFP_NORETRY: Flags = Flags(bindings::__GFP_NORETRY);
}

/// A NUMA node.
#[derive(Clone, Copy)]
pub struct NumaNode;

impl NumaNode {
    /// Any.
    pub const NO_NODE: Self = Self;
}

/// Where memory comes from.
///
/// # Safety
///
/// Memory must stay valid, and where it is, until it is given back.
pub unsafe trait Allocator {
    /// How all memory is aligned at least.
    const MIN_ALIGN: usize;

    /// Gets memory if `old` is none, gives it back if `layout` has no size.
    ///
    /// # Safety
    ///
    /// `old` must be of this allocator and `old_layout`, and in nobody's use if it is given back.
    ///
    /// # Errors
    ///
    /// There is no memory.
    unsafe fn realloc(
        old: Option<NonNull<u8>>,
        layout: Layout,
        old_layout: Layout,
        flags: Flags,
        node: NumaNode,
    ) -> Result<NonNull<[u8]>, AllocError>;

    /// Gets memory.
    ///
    /// # Errors
    ///
    /// There is none.
    fn alloc(layout: Layout, flags: Flags, node: NumaNode) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: There is no old memory.
        unsafe { Self::realloc(None, layout, Layout::new::<()>(), flags, node) }
    }

    /// Gives memory back.
    ///
    /// # Safety
    ///
    /// It must be of this allocator and `layout`, and in nobody's use.
    unsafe fn free(old: NonNull<u8>, layout: Layout) {
        let (nothing, flags) = (Layout::new::<()>(), flags::GFP_NOWAIT);
        // SAFETY: The caller vouches for it.
        let _ = unsafe { Self::realloc(Some(old), nothing, layout, flags, NumaNode::NO_NODE) };
    }
}

/// A box of `kmalloc()`.
pub type KBox<T> = Box<T, allocator::Kmalloc>;
/// A vector of `kmalloc()`.
pub type KVec<T> = Vec<T, allocator::Kmalloc>;
/// A vector of `kvmalloc()`.
pub type KVVec<T> = Vec<T, allocator::KVmalloc>;
