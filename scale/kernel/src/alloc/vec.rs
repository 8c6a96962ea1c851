// SPDX-License-Identifier: GPL-2.0

//! Values side by side, as many as there come.

use super::{AllocError, Flags};
use crate::usage;
use core::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

/// There is no such place in a [`Vec`].
#[derive(Debug)]
pub struct OutOfPlace;

/// Values in memory of the program. Grows like the kernel's `Vec`: at least doubles its capacity.
///
/// Counts as memory of `kvmalloc()`; `A` is only a name.
pub struct Vec<T, A>(std::vec::Vec<T>, PhantomData<A>);

impl<T, A> Vec<T, A> {
    /// One without values.
    pub const fn new() -> Self {
        Self(std::vec::Vec::new(), PhantomData)
    }

    /// One with room for so many values.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn with_capacity(capacity: usize, flags: Flags) -> Result<Self, AllocError> {
        let mut new = Self::new();
        new.reserve(capacity, flags)?;
        Ok(new)
    }

    /// Makes room for so many more values.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn reserve(&mut self, additional: usize, _: Flags) -> Result<(), AllocError> {
        let (len, capacity) = (self.0.len(), self.0.capacity());
        if capacity - len < additional {
            let wanted = (len + additional).max(2 * capacity);
            if !usage::admit_vector(wanted * size_of::<T>()) {
                return Err(AllocError);
            }
            self.0.reserve_exact(wanted - len);
        }
        Ok(())
    }

    /// Puts a value behind the others.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn push(&mut self, value: T, flags: Flags) -> Result<(), AllocError> {
        self.reserve(1, flags)?;
        self.0.push(value);
        Ok(())
    }

    /// Takes the last value.
    pub fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    /// Takes value number `index`; the later ones move up.
    ///
    /// # Errors
    ///
    /// There are not so many.
    pub fn remove(&mut self, index: usize) -> Result<T, OutOfPlace> {
        match index < self.0.len() {
            true => Ok(self.0.remove(index)),
            false => Err(OutOfPlace),
        }
    }

    /// Puts a value before number `index`.
    ///
    /// # Errors
    ///
    /// There are not so many, or there is no room.
    pub fn insert_within_capacity(&mut self, index: usize, value: T) -> Result<(), OutOfPlace> {
        if index > self.0.len() || self.0.len() == self.0.capacity() {
            return Err(OutOfPlace);
        }
        self.0.insert(index, value);
        Ok(())
    }

    /// All values.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// So many copies of `value`.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn from_elem(value: T, count: usize, flags: Flags) -> Result<Self, AllocError>
    where
        T: Clone,
    {
        let mut new = Self::with_capacity(count, flags)?;
        new.0.resize(count, value);
        Ok(new)
    }

    /// How many values there is room for.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Drops all values.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Drops the values from number `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    /// Keeps the values that `keep` wants, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        self.0.retain_mut(|value| keep(value));
    }
}

impl<T, A> Default for Vec<T, A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, A> Deref for Vec<T, A> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, A> DerefMut for Vec<T, A> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T, A> IntoIterator for Vec<T, A> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, A> IntoIterator for &'a Vec<T, A> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'a, T, A> IntoIterator for &'a mut Vec<T, A> {
    type Item = &'a mut T;
    type IntoIter = core::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}
