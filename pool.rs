// SPDX-License-Identifier: GPL-2.0

//! Arena of small values that are named by 32-bit handles.
//!
//! `ksmd` keeps one [`RmapItem`](crate::rmap_item::RmapItem) for every page that it tracks, so a
//! word saved in it is a word saved for each page of every guest. Values that refer to each other
//! by handle need half the room that they need with pointers, and a handle that outlives its value
//! is a logic error that no memory is lost by: every access is checked against the arena.
//!
//! Values lie in chunks of [`CELLS`]; a chunk whose last value leaves is given back at once, and
//! the table of chunks when the arena is empty.

#![deny(unsafe_code)]

use core::{
    fmt,
    marker::PhantomData,
    num::NonZeroU32,
    ops::{
        Index,
        IndexMut, //
    }, //
};
use kernel::{
    alloc::{
        AllocError,
        Flags, //
    },
    prelude::*, //
};

/// Values in a chunk. With values of 32 bytes a chunk is a page.
const CELLS: usize = 128;

/// The name of a value in a [`Pool`].
///
/// Handles below 2^31 only are given out, so that a user may keep a bit of its own beside one.
pub(crate) struct Handle<T> {
    raw: NonZeroU32,
    _value: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    const LIMIT: usize = 1 << 31;

    /// Undoes [`Handle::raw`]; zero stands for no handle.
    #[inline]
    pub(crate) fn from_raw(raw: u32) -> Option<Self> {
        Some(Self {
            raw: NonZeroU32::new(raw)?,
            _value: PhantomData,
        })
    }

    /// The handle as a number, never zero.
    #[inline]
    pub(crate) fn raw(self) -> u32 {
        self.raw.get()
    }

    fn at(chunk: usize, cell: usize) -> Option<Self> {
        let number = chunk * CELLS + cell + 1;
        if number >= Self::LIMIT {
            return None;
        }
        Self::from_raw(number as u32)
    }

    #[inline]
    fn position(self) -> (usize, usize) {
        let number = self.raw.get() as usize - 1;
        (number / CELLS, number % CELLS)
    }
}

// Derived implementations would ask the same of `T`.
impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.raw == other.raw
    }
}

impl<T> Eq for Handle<T> {}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.raw)
    }
}

/// The number that stands for a handle or for none.
#[inline]
pub(crate) fn raw_or_zero<T>(handle: Option<Handle<T>>) -> u32 {
    handle.map_or(0, Handle::raw)
}

struct Chunk<T> {
    /// Either empty (no memory) or exactly [`CELLS`] values.
    cells: KVec<T>,
    used: [u64; 2],
    /// Next chunk with room, if this one is in that list.
    next_open: Option<u32>,
}

impl<T: Default> Chunk<T> {
    const fn new() -> Self {
        Self {
            cells: KVec::new(),
            used: [0; 2],
            next_open: None,
        }
    }

    fn back_with_memory(&mut self, flags: Flags) -> Result<(), AllocError> {
        if !self.cells.is_empty() {
            return Ok(());
        }
        let mut cells = KVec::with_capacity(CELLS, flags)?;
        for _ in 0..CELLS {
            cells.push(T::default(), flags)?;
        }
        self.cells = cells;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.used == [u64::MAX; 2]
    }

    fn is_vacant(&self) -> bool {
        self.used == [0; 2]
    }

    fn first_free(&self) -> Option<usize> {
        match self.used {
            [u64::MAX, u64::MAX] => None,
            [u64::MAX, high] => Some(64 + high.trailing_ones() as usize),
            [low, _] => Some(low.trailing_ones() as usize),
        }
    }

    fn mark(&mut self, cell: usize) {
        self.used[cell / 64] |= 1 << (cell % 64);
    }

    fn unmark(&mut self, cell: usize) {
        self.used[cell / 64] &= !(1 << (cell % 64));
    }
}

/// See the [module's description](self).
pub(crate) struct Pool<T> {
    chunks: KVVec<Chunk<T>>,
    /// First of the list of chunks that have room.
    open: Option<u32>,
    live: usize,
}

impl<T: Default> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: KVVec::new(),
            open: None,
            live: 0,
        }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Moves `value` into the arena.
    ///
    /// Fails when there is no memory for another chunk, or no handle left.
    pub(crate) fn insert(&mut self, value: T, flags: Flags) -> Result<Handle<T>, AllocError> {
        let at = self.open_chunk(flags)?;
        let chunk = &mut self.chunks[at];
        chunk.back_with_memory(flags)?;
        let cell = chunk.first_free().ok_or(AllocError)?;
        let handle = Handle::at(at, cell).ok_or(AllocError)?;
        chunk.cells[cell] = value;
        chunk.mark(cell);
        if chunk.is_full() {
            self.open = chunk.next_open.take();
        }
        self.live += 1;
        Ok(handle)
    }

    /// Moves a value out of the arena; its handle may be given out again.
    pub(crate) fn remove(&mut self, handle: Handle<T>) -> T {
        let (at, cell) = handle.position();
        let chunk = &mut self.chunks[at];
        let value = core::mem::take(&mut chunk.cells[cell]);
        if chunk.is_full() {
            chunk.next_open = self.open.replace(at as u32);
        }
        chunk.unmark(cell);
        if chunk.is_vacant() {
            chunk.cells = KVec::new();
        }
        self.live -= 1;
        if self.live == 0 {
            *self = Self::new();
        }
        value
    }

    /// The handle of some value, for emptying the arena.
    pub(crate) fn any(&self) -> Option<Handle<T>> {
        self.handles().next()
    }

    /// The handles of all values, in no order that means anything.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Handle<T>> + '_ {
        self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            (0..CELLS)
                .filter(|cell| chunk.used[cell / 64] & (1 << (cell % 64)) != 0)
                .filter_map(move |cell| Handle::at(at, cell))
        })
    }

    /// Calls `f` with each value, in no order that means anything.
    pub(crate) fn for_each_mut(&mut self, mut f: impl FnMut(&mut T)) {
        for chunk in &mut self.chunks {
            for (cell, value) in chunk.cells.iter_mut().enumerate() {
                if chunk.used[cell / 64] & (1 << (cell % 64)) != 0 {
                    f(value);
                }
            }
        }
    }

    fn open_chunk(&mut self, flags: Flags) -> Result<usize, AllocError> {
        if let Some(at) = self.open {
            return Ok(at as usize);
        }
        let at = self.chunks.len();
        self.chunks.push(Chunk::new(), flags)?;
        self.open = Some(at as u32);
        Ok(at)
    }
}

impl<T> Index<Handle<T>> for Pool<T> {
    type Output = T;

    #[inline]
    fn index(&self, handle: Handle<T>) -> &T {
        let (chunk, cell) = handle.position();
        &self.chunks[chunk].cells[cell]
    }
}

impl<T> IndexMut<Handle<T>> for Pool<T> {
    #[inline]
    fn index_mut(&mut self, handle: Handle<T>) -> &mut T {
        let (chunk, cell) = handle.position();
        &mut self.chunks[chunk].cells[cell]
    }
}

#[kernel::macros::kunit_tests(ksm_rs_pool)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_handles() -> Result {
        let mut pool = Pool::new();
        let mut handles = KVec::new();
        for n in 0..3 * CELLS + 1 {
            handles.push(pool.insert(n, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        assert_eq!(pool.len(), 3 * CELLS + 1);
        for (n, handle) in handles.iter().enumerate() {
            assert_eq!(pool[*handle], n);
        }
        assert_eq!(pool.handles().count(), pool.len());
        pool.remove(handles[7]);
        pool.for_each_mut(|n| *n += 1);
        assert_eq!(pool[handles[6]], 7);
        assert_eq!(pool.handles().map(|handle| pool[handle]).min(), Some(1));
        Ok(())
    }

    #[test]
    fn freed_cells_are_used_again() -> Result {
        let mut pool = Pool::new();
        let mut handles = KVec::new();
        for n in 0..2 * CELLS {
            handles.push(pool.insert(n, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        for handle in handles.iter().step_by(3) {
            pool.remove(*handle);
        }
        let freed = 2 * CELLS - pool.len();
        for _ in 0..freed {
            pool.insert(7, GFP_KERNEL)?;
        }
        assert_eq!(pool.chunks.len(), 2);
        assert!(pool.open.is_none());
        Ok(())
    }

    #[test]
    fn an_empty_chunk_gives_its_memory_back() -> Result {
        let mut pool = Pool::new();
        let mut handles = KVec::new();
        for n in 0..2 * CELLS {
            handles.push(pool.insert(n, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        for handle in &handles[..CELLS] {
            pool.remove(*handle);
        }
        assert_eq!(pool.chunks[0].cells.capacity(), 0);
        assert_eq!(pool[handles[CELLS]], CELLS);
        for handle in &handles[CELLS..] {
            pool.remove(*handle);
        }
        assert_eq!(pool.chunks.capacity(), 0);
        assert!(pool.any().is_none());
        Ok(())
    }
}
