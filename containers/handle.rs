// SPDX-License-Identifier: GPL-2.0

//! Handles: numbers that name values of a [`Table`](crate::containers::handle_table::Table).
//!
//! A handle says what kind of value it names, but does not depend on its type: so records can name
//! each other without a circle of definitions.

#![deny(unsafe_code)]

use core::{
    fmt,
    marker::PhantomData,
    num::NonZeroU32, //
};

/// A value that handles name.
pub(crate) trait Named {
    /// Keeps these handles apart from those of other values. Values of several tables may share a
    /// name, if they stand under the same numbers.
    type Name;
}

/// Identifies a value: a number from 1 on. `N` is the [`Named::Name`] of the values.
pub(crate) struct Handle<N> {
    raw: NonZeroU32,
    _name: PhantomData<fn() -> N>,
}

impl<N> Handle<N> {
    /// Undoes [`Handle::raw`]; zero stands for no handle.
    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        Some(Self {
            raw: NonZeroU32::new(raw)?,
            _name: PhantomData,
        })
    }

    /// The handle as a number, never zero.
    #[inline]
    pub(crate) fn raw(self) -> u32 {
        self.raw.get()
    }
}

// Derived implementations would ask the same of `N`.
impl<N> Clone for Handle<N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<N> Copy for Handle<N> {}

impl<N> PartialEq for Handle<N> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl<N> Eq for Handle<N> {}

impl<N> fmt::Debug for Handle<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.raw)
    }
}

/// The number that stands for a handle or for none.
#[inline]
pub(crate) fn raw_or_zero<N>(handle: Option<Handle<N>>) -> u32 {
    handle.map_or(0, Handle::raw)
}
