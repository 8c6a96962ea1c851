// SPDX-License-Identifier: GPL-2.0

//! Arena of small values that are named by 32-bit handles.
//!
//! `ksmd` keeps one [`RmapItem`](crate::rmap_item::RmapItem) for every page that it tracks, so a
//! word saved in it is a word saved for each page of every guest. Values that refer to each other
//! by handle need half the room that they need with pointers, and a handle that outlives its value
//! is a logic error that no memory is lost by: it leads to another value of the arena, to an empty
//! cell, or to no chunk, which is found out at once. In a debug kernel, an empty cell is as well.
//!
//! Values lie in chunks of [`CELLS`]; a chunk whose last value leaves is given back at once, and
//! the table of chunks when the arena is empty.

#![deny(unsafe_code)]

use crate::{
    kthread,
    mm::prefetch::prefetch, //
};
use core::{
    fmt,
    iter::successors,
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
use pin_init::init_array_from_fn;

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

    /// Where the next value would be.
    fn position_behind(self) -> (usize, usize) {
        let number = self.raw.get() as usize;
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

/// The memory of a chunk, which a search for a value goes through, so it is a pointer and no more.
type Cells<T> = Option<KBox<[T; CELLS]>>;

/// Which cells of a chunk are in use.
#[derive(Default)]
struct Usage {
    used: [u64; 2],
    /// Next chunk with room, if this one is in that list.
    next_open: Option<u32>,
}

impl Usage {
    fn is_full(&self) -> bool {
        self.used == [u64::MAX; 2]
    }

    fn is_vacant(&self) -> bool {
        self.used == [0; 2]
    }

    fn contains(&self, cell: usize) -> bool {
        self.used[cell / 64] & (1 << (cell % 64)) != 0
    }

    fn first_free(&self) -> Option<usize> {
        match self.used {
            [u64::MAX, u64::MAX] => None,
            [u64::MAX, high] => Some(64 + high.trailing_ones() as usize),
            [low, _] => Some(low.trailing_ones() as usize),
        }
    }

    /// The first cell in use that is not before `from`.
    fn first_used(&self, from: usize) -> Option<usize> {
        (from..CELLS).find(|cell| self.contains(*cell))
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
    chunks: KVVec<Cells<T>>,
    /// As long as `chunks`.
    usage: KVVec<Usage>,
    /// First of the list of chunks that have room.
    open: Option<u32>,
    live: usize,
}

impl<T: Default> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: KVVec::new(),
            usage: KVVec::new(),
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
        let usage = &mut self.usage[at];
        let cell = usage.first_free().ok_or(AllocError)?;
        let handle = Handle::at(at, cell).ok_or(AllocError)?;
        back_with_memory(&mut self.chunks[at], flags)?[cell] = value;
        usage.mark(cell);
        if usage.is_full() {
            self.open = usage.next_open.take();
        }
        self.live += 1;
        Ok(handle)
    }

    /// Moves a value out of the arena; its handle may be given out again.
    pub(crate) fn remove(&mut self, handle: Handle<T>) -> T {
        let value = core::mem::take(&mut self[handle]);
        let (at, cell) = handle.position();
        let usage = &mut self.usage[at];
        if usage.is_full() {
            usage.next_open = self.open.replace(at as u32);
        }
        usage.unmark(cell);
        if usage.is_vacant() {
            self.chunks[at] = None;
        }
        self.live -= 1;
        if self.live == 0 {
            *self = Self::new();
        }
        value
    }

    /// Drops all values, and gives the CPU away in between if others want it.
    pub(crate) fn clear(&mut self) {
        while self.chunks.pop().is_some() {
            kthread::cond_resched();
        }
        *self = Self::new();
    }

    /// The handle of the value behind that of `handle`, or of the first, in the order of
    /// [`Pool::handles`]; `handle` may be that of a value that was just removed.
    pub(crate) fn next_after(&self, handle: Option<Handle<T>>) -> Option<Handle<T>> {
        let (first, cell) = handle.map_or((0, 0), Handle::position_behind);
        (first..self.usage.len()).find_map(|at| {
            let from = if at == first { cell } else { 0 };
            Handle::at(at, self.usage[at].first_used(from)?)
        })
    }

    /// The handles of all values, in no order that means anything.
    pub(crate) fn handles(&self) -> impl Iterator<Item = Handle<T>> + '_ {
        successors(self.next_after(None), |handle| {
            self.next_after(Some(*handle))
        })
    }

    /// Calls `f` with each value, in no order that means anything.
    pub(crate) fn for_each_mut(&mut self, mut f: impl FnMut(&mut T)) {
        for (cells, usage) in self.chunks.iter_mut().zip(&self.usage) {
            let cells = cells.iter_mut().flat_map(|cells| cells.iter_mut());
            for (cell, value) in cells.enumerate() {
                if usage.contains(cell) {
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
        self.chunks.reserve(1, flags)?;
        self.usage.push(Usage::default(), flags)?;
        self.chunks.push(None, flags)?;
        self.open = Some(at as u32);
        Ok(at)
    }
}

impl<T> Pool<T> {
    /// Asks the CPU to fetch a value that will soon be looked at.
    #[inline]
    pub(crate) fn prefetch(&self, handle: Handle<T>) {
        prefetch(&self[handle]);
    }
}

fn back_with_memory<T: Default>(
    cells: &mut Cells<T>,
    flags: Flags,
) -> Result<&mut [T; CELLS], AllocError> {
    match cells {
        Some(cells) => Ok(cells),
        none => {
            let new = KBox::init(init_array_from_fn(|_| T::default()), flags);
            Ok(none.insert(new.map_err(|_: Error| AllocError)?))
        }
    }
}

impl<T> Index<Handle<T>> for Pool<T> {
    type Output = T;

    #[inline]
    fn index(&self, handle: Handle<T>) -> &T {
        let (chunk, cell) = handle.position();
        debug_assert!(self.usage[chunk].contains(cell));
        match &self.chunks[chunk] {
            Some(cells) => &cells[cell],
            None => no_such_chunk(),
        }
    }
}

impl<T> IndexMut<Handle<T>> for Pool<T> {
    #[inline]
    fn index_mut(&mut self, handle: Handle<T>) -> &mut T {
        let (chunk, cell) = handle.position();
        debug_assert!(self.usage[chunk].contains(cell));
        match &mut self.chunks[chunk] {
            Some(cells) => &mut cells[cell],
            None => no_such_chunk(),
        }
    }
}

#[cold]
fn no_such_chunk() -> ! {
    panic!("a handle was used after its value had been removed")
}

#[kernel::macros::kunit_tests(ksm_rs_pool)]
mod tests {
    use super::*;
    use crate::random::Random;

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
        assert!(pool.chunks[0].is_none());
        assert_eq!(pool[handles[CELLS]], CELLS);
        for handle in &handles[CELLS..] {
            pool.remove(*handle);
        }
        assert_eq!(pool.chunks.capacity(), 0);
        assert!(pool.handles().next().is_none());
        Ok(())
    }

    #[test]
    fn a_cleared_pool_is_as_new() -> Result {
        let mut pool = Pool::new();
        for _ in 0..2 {
            for n in 0..CELLS + 1 {
                let handle = pool.insert(n, GFP_KERNEL)?;
                assert_eq!(handle.position(), (n / CELLS, n % CELLS));
            }
            pool.clear();
            assert!(pool.len() == 0 && pool.handles().next().is_none());
            assert_eq!(pool.chunks.capacity(), 0);
        }
        Ok(())
    }

    #[test]
    fn values_are_found_one_after_another_while_they_go() -> Result {
        let mut pool = Pool::new();
        for n in 0..2 * CELLS + 5 {
            pool.insert(n, GFP_KERNEL)?;
        }
        let (mut last, mut found) = (None, 0);
        while let Some(handle) = pool.next_after(last) {
            assert_eq!(pool[handle], found);
            found += 1;
            // Whole chunks go, others lose every second value.
            if found < CELLS + 3 || found % 2 == 0 {
                pool.remove(handle);
            }
            last = Some(handle);
        }
        assert_eq!(found, 2 * CELLS + 5);
        assert!(pool
            .handles()
            .map(|handle| pool[handle])
            .all(|n| n % 2 == 0));
        Ok(())
    }

    /// Whether the chunks know rightly which of their cells are in use, and where there is room.
    fn is_sound<T>(pool: &Pool<T>) -> bool {
        let live = pool.usage.iter().flat_map(|usage| usage.used);
        let has_memory = |(cells, usage): (&Cells<T>, &Usage)| usage.is_vacant() || cells.is_some();
        let open = successors(pool.open, |at| pool.usage[*at as usize].next_open);
        let has_room = |at: &u32| !pool.usage[*at as usize].is_full();
        let with_room = pool.usage.iter().filter(|usage| !usage.is_full()).count();
        live.map(|word| word.count_ones() as usize).sum::<usize>() == pool.live
            && pool.chunks.len() == pool.usage.len()
            && pool.chunks.iter().zip(&pool.usage).all(has_memory)
            // Each once, and no others.
            && open.take(with_room + 1).filter(has_room).count() == with_room
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut random = Random::new(21);
        let mut pool = Pool::new();
        let mut model = KVec::<(Handle<usize>, usize)>::new();
        for value in 0..6000 {
            // By turns it grows and shrinks, so that chunks come and go.
            let growth = if value / 1000 % 2 == 0 { 70 } else { 20 };
            if model.is_empty() || random.below(100) < growth {
                let handle = pool.insert(value, GFP_KERNEL)?;
                assert!(model.iter().all(|(other, _)| *other != handle));
                model.push((handle, value), GFP_KERNEL)?;
            } else {
                let (index, last) = (random.below(model.len()), model.len() - 1);
                model.swap(index, last);
                let gone = model.pop().ok_or(EINVAL)?;
                assert_eq!(pool.remove(gone.0), gone.1);
            }
            assert!(is_sound(&pool));
            assert_eq!(pool.len(), model.len());
            assert!(model.iter().all(|(handle, value)| pool[*handle] == *value));
            let known = |handle| model.iter().any(|(other, _)| *other == handle);
            assert!(pool.handles().count() == model.len() && pool.handles().all(known));
        }
        Ok(())
    }
}
