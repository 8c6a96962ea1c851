// SPDX-License-Identifier: GPL-2.0

//! Values that know how many of them were touched.

use crate::{rbtree::Values, table::Handle};
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

impl<T, V: Values<T>> Index<Handle<T>> for Counted<V> {
    type Output = T;

    fn index(&self, handle: Handle<T>) -> &T {
        self.touched.borrow_mut().insert(handle.raw());
        &self.values[handle]
    }
}

impl<T, V: Values<T>> IndexMut<Handle<T>> for Counted<V> {
    fn index_mut(&mut self, handle: Handle<T>) -> &mut T {
        self.touched.get_mut().insert(handle.raw());
        &mut self.values[handle]
    }
}
