// SPDX-License-Identifier: GPL-2.0

//! A value in memory of its own.

use super::{AllocError, Allocator, Flags, NumaNode};
use crate::{error::Error, init::Init};
use core::{
    alloc::Layout,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

/// A `T` in memory of `A`.
///
/// # Invariants
///
/// The pointer is to a `T` in memory of `A` that is nobody else's.
pub struct Box<T, A: Allocator>(NonNull<T>, PhantomData<A>);

// SAFETY: As the value, which it owns.
unsafe impl<T: Send, A: Allocator> Send for Box<T, A> {}
// SAFETY: As the value, which it owns.
unsafe impl<T: Sync, A: Allocator> Sync for Box<T, A> {}

impl<T, A: Allocator> Box<T, A> {
    /// Moves `value` into memory of its own.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new(value: T, flags: Flags) -> Result<Self, AllocError> {
        let memory = Self::memory(flags)?;
        // SAFETY: It was just allocated for a `T`.
        unsafe { memory.write(value) };
        // INVARIANT: It has a value now.
        Ok(Self(memory, PhantomData))
    }

    /// Has `init` make a value in memory of its own.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn init<E>(init: impl Init<T>, flags: Flags) -> Result<Self, E>
    where
        E: From<Error>,
    {
        let memory = Self::memory(flags).map_err(Error::from)?;
        // SAFETY: It was just allocated for a `T`.
        unsafe { init.init(memory.as_ptr()) };
        // INVARIANT: It has a value now.
        Ok(Self(memory, PhantomData))
    }

    fn memory(flags: Flags) -> Result<NonNull<T>, AllocError> {
        Ok(A::alloc(Layout::new::<T>(), flags, NumaNode::NO_NODE)?.cast())
    }
}

impl<T, A: Allocator> Deref for Box<T, A> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T, A: Allocator> DerefMut for Box<T, A> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_mut() }
    }
}

impl<T, A: Allocator> Drop for Box<T, A> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant; nobody uses it any more.
        unsafe {
            self.0.drop_in_place();
            A::free(self.0.cast(), Layout::new::<T>());
        }
    }
}
