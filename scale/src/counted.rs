// SPDX-License-Identifier: GPL-2.0

//! Values that know how many of them were touched.

use crate::containers::handle::Handle;
use std::{
    cell::RefCell,
    collections::HashSet,
    ops::{Index, IndexMut},
};

/// Values of `V`, and those that were looked at or changed since [`Counted::take`].
pub(crate) struct Counted<V> {
    pub(crate) values: V,
    touched: RefCell<HashSet<u32>>,
}

impl<V> Counted<V> {
    pub(crate) fn new(values: V) -> Self {
        Self {
            values,
            touched: RefCell::default(),
        }
    }

    /// How many different values were touched since the last call.
    pub(crate) fn take(&self) -> usize {
        let mut touched = self.touched.borrow_mut();
        let count = touched.len();
        touched.clear();
        count
    }
}

impl<N, V: Index<Handle<N>>> Index<Handle<N>> for Counted<V> {
    type Output = V::Output;

    fn index(&self, handle: Handle<N>) -> &V::Output {
        self.touched.borrow_mut().insert(handle.raw());
        &self.values[handle]
    }
}

impl<N, V: IndexMut<Handle<N>>> IndexMut<Handle<N>> for Counted<V> {
    fn index_mut(&mut self, handle: Handle<N>) -> &mut V::Output {
        self.touched.get_mut().insert(handle.raw());
        &mut self.values[handle]
    }
}
