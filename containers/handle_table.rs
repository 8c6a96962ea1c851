// SPDX-License-Identifier: GPL-2.0

//! Small values that are named by 32-bit handles.
//!
//! `ksmd` keeps one [`RmapItem`](crate::rmap_item::RmapItem) for every page that it tracks, so a
//! word saved in it is a word saved for each page of every guest. Values that refer to each other
//! by handle need half the room that they need with pointers, and a handle that outlives its value
//! is a logic error that no memory is lost by: it leads to another value of the table, to an empty
//! cell, or to no chunk, which is found out at once. In a debug kernel, an empty cell is as well.
//!
//! Values lie in chunks of a page; a chunk whose last value leaves is given back at once.

#![deny(unsafe_code)]

#[cfg(CONFIG_KUNIT = "y")]
use crate::kernel_api::pages::Pages;
use crate::{
    containers::{
        handle::{
            Handle,
            Named, //
        },
        paged::{
            in_page,
            new_array,
            Paged,
            POINTERS, //
        }, //
    },
    kernel_api::kthread, //
};
use core::ops::{
    Index,
    IndexMut, //
};
use kernel::{
    alloc::{
        AllocError,
        Allocator,
        Box,
        Flags, //
    },
    prelude::*, //
};

/// A value that a [`Table`] may have.
pub(crate) trait Stored: Default + Named {
    /// The number of handles: the highest one needs 31 bits, so users can store a bit with it.
    const HANDLES: usize = (1 << 31) - 1;
    /// An array of [`per_page`] of them.
    type Chunk: Chunk<Self>;
    /// Where the memory for it comes from.
    type Memory: Allocator + 'static;
}

/// How many values of a type fill a page, or as many as a chunk may have.
pub(crate) const fn per_page<T>() -> usize {
    let fitting = in_page::<T>();
    match fitting < Usage::BITS {
        true => fitting,
        false => Usage::BITS,
    }
}

/// Room for a few values.
pub(crate) trait Chunk<T: Stored>: Sized + AsRef<[T]> + AsMut<[T]> {
    /// How many they are.
    const CELLS: usize;

    fn new(flags: Flags) -> Result<Box<Self, T::Memory>, AllocError>;
}

impl<T: Stored, const N: usize> Chunk<T> for [T; N] {
    const CELLS: usize = N;

    fn new(flags: Flags) -> Result<Box<Self, T::Memory>, AllocError> {
        new_array(flags)
    }
}

/// Which cells of a chunk are in use.
#[derive(Default)]
struct Usage {
    used: [u64; 4],
}

impl Usage {
    const BITS: usize = 256;

    fn is_vacant(&self) -> bool {
        self.used.iter().all(|word| *word == 0)
    }

    fn contains(&self, cell: usize) -> bool {
        self.used[cell / 64] & (1 << (cell % 64)) != 0
    }

    /// The first cell that is not in use, which need not be one of the chunk.
    fn first_free(&self) -> usize {
        let full = self.used.iter().take_while(|word| **word == u64::MAX);
        let word = full.count();
        let bits = self.used.get(word).map_or(0, |word| word.trailing_ones());
        word * 64 + bits as usize
    }

    /// The first cell in use that is not before `from`.
    fn first_used(&self, from: usize) -> Option<usize> {
        let (first, bit) = (from / 64, from % 64);
        let mut mask = u64::MAX << bit;
        for (at, word) in self.used.iter().enumerate().skip(first) {
            let used = word & mask;
            if used != 0 {
                return Some(at * 64 + used.trailing_zeros() as usize);
            }
            mask = u64::MAX;
        }
        None
    }

    fn mark(&mut self, cell: usize) {
        debug_assert!(!self.contains(cell));
        self.used[cell / 64] |= 1 << (cell % 64);
    }

    fn unmark(&mut self, cell: usize) {
        self.used[cell / 64] &= !(1 << (cell % 64));
    }
}

/// Where the table stores the pointer to a chunk.
type Slot<T> = Option<Box<<T as Stored>::Chunk, <T as Stored>::Memory>>;

/// See the [module's description](self).
///
/// Where a value stands is the caller's choice; [`Pool`](crate::containers::pool::Pool) chooses itself.
pub(crate) struct Table<T: Stored> {
    /// The first [`Table::NEAR`] chunks. Every access to a value goes through here, and a directory
    /// would cost another load.
    near: KVVec<Slot<T>>,
    /// The other chunks.
    far: Paged<Slot<T>, POINTERS>,
    /// One entry for each chunk that exists or existed. There are at least as many slots.
    usage: Paged<Usage, { in_page::<Usage>() }>,
    live: usize,
}

impl<T: Stored> Table<T> {
    const CELLS: usize = <T::Chunk as Chunk<T>>::CELLS;

    /// The number of chunks in a vector, which copies all of them when it grows: enough for 2^24
    /// values of 16 bytes, 64 GiB of pages. It takes up to 512 KiB, for which `kvmalloc()` does not
    /// need contiguous pages.
    const NEAR: usize = 1 << 16;

    /// The number of vacant chunks that [`Table::next_after`] skips between two chances to
    /// reschedule.
    const VACANT_AT_ONCE: usize = 512;

    pub(crate) const fn new() -> Self {
        Self {
            near: KVVec::new(),
            far: Paged::new(),
            usage: Paged::new(),
            live: 0,
        }
    }

    /// The handle of a cell in a chunk, or `None` above the highest handle.
    fn handle_at(chunk: usize, cell: usize) -> Option<Handle<T::Name>> {
        let number = chunk * Self::CELLS + cell + 1;
        if number > T::HANDLES {
            return None;
        }
        Handle::from_raw(number as u32)
    }

    /// Undoes [`Table::handle_at`].
    #[inline]
    pub(crate) fn position(handle: Handle<T::Name>) -> (usize, usize) {
        let number = handle.raw() as usize - 1;
        (number / Self::CELLS, number % Self::CELLS)
    }

    /// Where the value behind that of `handle` would be.
    fn position_behind(handle: Handle<T::Name>) -> (usize, usize) {
        let number = handle.raw() as usize;
        (number / Self::CELLS, number % Self::CELLS)
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// How many chunks there are or have been.
    pub(crate) fn chunks(&self) -> usize {
        self.usage.len()
    }

    /// Whether there is a value called `handle`.
    pub(crate) fn contains(&self, handle: Handle<T::Name>) -> bool {
        let (at, cell) = Self::position(handle);
        self.usage.get(at).is_some_and(|usage| usage.contains(cell))
    }

    /// Moves `value` into the table, which has none called `handle`.
    ///
    /// # Errors
    ///
    /// Fails without memory for another chunk.
    pub(crate) fn put(
        &mut self,
        handle: Handle<T::Name>,
        value: T,
        flags: Flags,
    ) -> Result<(), AllocError> {
        let (at, cell) = Self::position(handle);
        self.extend(at + 1, flags)?;
        let chunk = match self.slot_mut(at) {
            Some(chunk) => chunk,
            none => none.insert(T::Chunk::new(flags)?),
        };
        chunk.as_mut()[cell] = value;
        self.usage[at].mark(cell);
        self.live += 1;
        Ok(())
    }

    /// Moves a value out of the table.
    pub(crate) fn remove(&mut self, handle: Handle<T::Name>) -> T {
        let value = core::mem::take(&mut self[handle]);
        let (at, cell) = Self::position(handle);
        let usage = &mut self.usage[at];
        usage.unmark(cell);
        if usage.is_vacant() {
            *self.slot_mut(at) = None;
        }
        self.live -= 1;
        value
    }

    /// Drops all values. May sleep.
    pub(crate) fn clear(&mut self) {
        for at in 0..self.chunks() {
            *self.slot_mut(at) = None;
            kthread::cond_resched();
        }
        self.near = KVVec::new();
        self.far.truncate(0);
        self.usage.truncate(0);
        self.live = 0;
    }

    /// Makes the table `chunks` long, if it is shorter.
    ///
    /// # Errors
    ///
    /// Fails without memory; the table may have grown in part then.
    pub(crate) fn extend(&mut self, chunks: usize, flags: Flags) -> Result<(), AllocError> {
        while self.chunks() < chunks {
            if self.chunks() == self.near.len() + self.far.len() {
                self.add_slot(flags)?;
            }
            self.usage.grow(flags)?;
        }
        Ok(())
    }

    fn add_slot(&mut self, flags: Flags) -> Result<(), AllocError> {
        match self.near.len() < Self::NEAR {
            true => self.near.push(None, flags),
            false => self.far.grow(flags),
        }
    }

    #[inline]
    fn slot(&self, chunk: usize) -> &Slot<T> {
        match self.near.get(chunk) {
            Some(slot) => slot,
            None => self.far_slot(chunk),
        }
    }

    #[inline]
    fn slot_mut(&mut self, chunk: usize) -> &mut Slot<T> {
        match self.near.get_mut(chunk) {
            Some(slot) => slot,
            None => Self::far_slot_mut(&mut self.far, chunk),
        }
    }

    #[inline(never)]
    fn far_slot(&self, chunk: usize) -> &Slot<T> {
        &self.far[chunk - Self::NEAR]
    }

    #[inline(never)]
    fn far_slot_mut(far: &mut Paged<Slot<T>, POINTERS>, chunk: usize) -> &mut Slot<T> {
        &mut far[chunk - Self::NEAR]
    }

    /// A handle of chunk number `at` that no value has.
    pub(crate) fn free_handle_in(&self, at: usize) -> Option<Handle<T::Name>> {
        let cell = self.usage[at].first_free();
        (cell < Self::CELLS).then(|| Self::handle_at(at, cell))?
    }

    /// Whether every cell of chunk number `at` is in use.
    pub(crate) fn is_full(&self, at: usize) -> bool {
        self.usage[at].first_free() >= Self::CELLS
    }

    /// The handle of the value behind that of `handle`, or of the first, in the order of their
    /// numbers; `handle` may be that of a value that was just removed.
    ///
    /// May sleep, as it may skip many vacant chunks.
    pub(crate) fn next_after(&self, handle: Option<Handle<T::Name>>) -> Option<Handle<T::Name>> {
        let (first, mut from) = handle.map_or((0, 0), Self::position_behind);
        for at in first..self.chunks() {
            if let Some(cell) = self.usage[at].first_used(from) {
                return Self::handle_at(at, cell);
            }
            from = 0;
            if (at - first) % Self::VACANT_AT_ONCE == Self::VACANT_AT_ONCE - 1 {
                kthread::cond_resched();
            }
        }
        None
    }

    /// The handles of all values, in their order.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn handles(&self) -> impl Iterator<Item = Handle<T::Name>> + '_ {
        core::iter::successors(self.next_after(None), |handle| {
            self.next_after(Some(*handle))
        })
    }

    /// Calls `f` with each value, in the order of their handles. May sleep.
    pub(crate) fn for_each_mut(&mut self, mut f: impl FnMut(&mut T)) {
        for at in 0..self.chunks() {
            let mut next = self.usage[at].first_used(0);
            while let Some(cell) = next {
                if let Some(chunk) = self.slot_mut(at) {
                    f(&mut chunk.as_mut()[cell]);
                }
                next = self.usage[at].first_used(cell + 1);
            }
            kthread::cond_resched();
        }
    }

    /// Whether the chunks know rightly which of their cells are in use.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(crate) fn is_sound(&self) -> bool {
        let used = |at: usize| {
            let words = self.usage[at].used.iter();
            words.map(|word| word.count_ones() as usize).sum::<usize>()
        };
        let mut all = 0..self.chunks();
        all.clone().map(used).sum::<usize>() == self.live
            && self.near.len() + self.far.len() >= self.chunks()
            && all.all(|at| self.slot(at).is_some() == (used(at) > 0))
    }
}

impl<T: Stored> Index<Handle<T::Name>> for Table<T> {
    type Output = T;

    #[inline]
    fn index(&self, handle: Handle<T::Name>) -> &T {
        let (chunk, cell) = Self::position(handle);
        debug_assert!(self.contains(handle));
        match self.slot(chunk) {
            Some(cells) => &cells.as_ref()[cell],
            None => no_such_chunk(),
        }
    }
}

impl<T: Stored> IndexMut<Handle<T::Name>> for Table<T> {
    #[inline]
    fn index_mut(&mut self, handle: Handle<T::Name>) -> &mut T {
        let (chunk, cell) = Self::position(handle);
        debug_assert!(self.contains(handle));
        match self.slot_mut(chunk) {
            Some(cells) => &mut cells.as_mut()[cell],
            None => no_such_chunk(),
        }
    }
}

#[cold]
fn no_such_chunk() -> ! {
    panic!("a handle was used after its value had been removed")
}

#[cfg(CONFIG_KUNIT = "y")]
impl Named for usize {
    type Name = Self;
}

#[cfg(CONFIG_KUNIT = "y")]
impl Stored for usize {
    type Chunk = [Self; 100];
    type Memory = Pages;
}

#[kernel::macros::kunit_tests(ksm_rs_table)]
mod tests {
    use super::*;
    use crate::testing::random::Random;

    fn handle(raw: usize) -> Result<Handle<usize>> {
        Handle::from_raw(raw as u32).ok_or(EINVAL)
    }

    #[test]
    fn values_stand_where_they_were_put() -> Result {
        let mut table = Table::new();
        for raw in [1, 99, 100, 101, 1000] {
            assert!(!table.contains(handle(raw)?));
            table.put(handle(raw)?, raw, GFP_KERNEL)?;
            assert!(table.contains(handle(raw)?));
        }
        assert_eq!((table.len(), table.chunks()), (5, 10));
        assert!(table
            .handles()
            .map(|at| table[at])
            .eq([1, 99, 100, 101, 1000]));
        table.for_each_mut(|value| *value += 1);
        assert_eq!(table.remove(handle(99)?), 100);
        assert!(!table.contains(handle(99)?) && table.contains(handle(100)?));
        assert!(table.is_sound());
        Ok(())
    }

    #[test]
    fn what_is_beyond_the_end_is_not_there() -> Result {
        let mut table = Table::<usize>::new();
        assert!(!table.contains(handle(1)?) && !table.contains(handle(1 << 31)?));
        table.put(handle(7)?, 7, GFP_KERNEL)?;
        assert!(!table.contains(handle(107)?) && !table.contains(handle(8)?));
        Ok(())
    }

    #[test]
    fn an_empty_table_has_no_chunks() -> Result {
        let mut table = Table::new();
        for raw in [300, 5] {
            table.put(handle(raw)?, raw, GFP_KERNEL)?;
        }
        assert!(table.slot(0).is_some() && table.slot(1).is_none());
        table.remove(handle(5)?);
        assert!(table.slot(0).is_none() && table[handle(300)?] == 300);
        table.remove(handle(300)?);
        assert!((0..table.chunks()).all(|at| table.slot(at).is_none()));
        for raw in [300, 5] {
            table.put(handle(raw)?, raw, GFP_KERNEL)?;
        }
        table.clear();
        assert_eq!(
            (table.chunks(), table.near.capacity(), table.len()),
            (0, 0, 0)
        );
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        const HANDLES: usize = 350;
        let mut random = Random::new(25);
        let mut table = Table::new();
        let mut model = [None; HANDLES];
        for value in 0..6000 {
            // By turns it grows and shrinks, so that chunks come and go.
            let growth = if value / 1000 % 2 == 0 { 80 } else { 20 };
            let at = random.below(HANDLES);
            let name = handle(at + 1)?;
            match model[at].take() {
                None if random.below(100) < growth => {
                    table.put(name, value, GFP_KERNEL)?;
                    model[at] = Some(value);
                }
                Some(gone) if random.below(100) >= growth => assert_eq!(table.remove(name), gone),
                unchanged => model[at] = unchanged,
            }
            assert!(table.is_sound());
            assert!(table
                .handles()
                .map(|at| table[at])
                .eq(model.iter().flatten().copied()));
            assert_eq!(table.contains(name), model[at].is_some());
        }
        Ok(())
    }
}
