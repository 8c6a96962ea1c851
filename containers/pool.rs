// SPDX-License-Identifier: GPL-2.0

//! A [`Table`] that gives its values their handles.

#![deny(unsafe_code)]

use crate::containers::{
    handle::Handle,
    handle_table::{
        Stored,
        Table, //
    },
    paged::{
        in_page,
        Paged, //
    }, //
};
use core::ops::{
    Deref,
    Index,
    IndexMut, //
};
use kernel::{
    alloc::{
        AllocError,
        Flags, //
    },
    prelude::*, //
};

/// Why a [`Pool`] cannot store another value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PoolError {
    /// There is no memory for another chunk. A later attempt may succeed.
    NoMemory,
    /// All [`Stored::HANDLES`] handles are in use. Only a removal helps.
    NoHandle,
}

impl From<AllocError> for PoolError {
    fn from(_: AllocError) -> Self {
        Self::NoMemory
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::NoMemory => ENOMEM,
            PoolError::NoHandle => ENOSPC,
        }
    }
}

/// See the [module's description](self).
pub(crate) struct Pool<T: Stored> {
    table: Table<T>,
    /// First of the list of chunks that have room.
    open: Option<u32>,
    /// For each chunk that is in that list, which is next.
    next_open: Paged<Option<u32>, { in_page::<Option<u32>>() }>,
}

impl<T: Stored> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self {
            table: Table::new(),
            open: None,
            next_open: Paged::new(),
        }
    }

    /// Moves `value` into the pool.
    ///
    /// # Errors
    ///
    /// Fails without memory, with [`PoolError::NoMemory`], or without a free handle, with
    /// [`PoolError::NoHandle`]; the latter is logged once.
    pub(crate) fn insert(&mut self, value: T, flags: Flags) -> Result<Handle<T::Name>, PoolError> {
        let at = self.open_chunk(flags)?;
        let Some(handle) = self.table.free_handle_in(at) else {
            kernel::pr_warn_once!(
                "all {} handles are in use: further pages are not merged until others are gone\n",
                T::HANDLES
            );
            return Err(PoolError::NoHandle);
        };
        self.table.put(handle, value, flags)?;
        if self.table.is_full(at) {
            self.open = self.next_open[at].take();
        }
        Ok(handle)
    }

    /// Moves a value out of the pool; its handle may be given out again.
    ///
    /// May sleep if this is the last value.
    pub(crate) fn remove(&mut self, handle: Handle<T::Name>) -> T {
        let (at, _) = Table::<T>::position(handle);
        if self.table.is_full(at) {
            self.next_open[at] = self.open.replace(at as u32);
        }
        let value = self.table.remove(handle);
        if self.table.len() == 0 {
            self.clear();
        }
        value
    }

    /// Drops all values. May sleep.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.open = None;
        self.next_open.truncate(0);
    }

    /// Calls `f` with each value, in the order of their handles. May sleep.
    pub(crate) fn for_each_mut(&mut self, f: impl FnMut(&mut T)) {
        self.table.for_each_mut(f);
    }

    /// A chunk with a free cell; it may be the last one and have no handle for the cell.
    fn open_chunk(&mut self, flags: Flags) -> Result<usize, AllocError> {
        if let Some(at) = self.open {
            return Ok(at as usize);
        }
        let at = self.next_open.len();
        self.table.extend(at + 1, flags)?;
        self.next_open.grow(flags)?;
        self.open = Some(at as u32);
        Ok(at)
    }
}

/// All that changes nothing is the table's.
impl<T: Stored> Deref for Pool<T> {
    type Target = Table<T>;

    #[inline]
    fn deref(&self) -> &Table<T> {
        &self.table
    }
}

impl<T: Stored> Index<Handle<T::Name>> for Pool<T> {
    type Output = T;

    #[inline]
    fn index(&self, handle: Handle<T::Name>) -> &T {
        &self.table[handle]
    }
}

impl<T: Stored> IndexMut<Handle<T::Name>> for Pool<T> {
    #[inline]
    fn index_mut(&mut self, handle: Handle<T::Name>) -> &mut T {
        &mut self.table[handle]
    }
}

#[kernel::macros::kunit_tests(ksm_rs_pool)]
mod tests {
    use super::*;
    use crate::{
        containers::{
            handle::Named,
            handle_table::Chunk, //
        },
        kernel_api::pages::Pages,
        testing::random::Random, //
    };
    use core::iter::successors;

    const CELLS: usize = <<usize as Stored>::Chunk as Chunk<usize>>::CELLS;

    fn filled(count: usize) -> Result<(Pool<usize>, KVec<Handle<usize>>)> {
        let mut pool = Pool::new();
        let mut handles = KVec::new();
        for n in 0..count {
            handles.push(pool.insert(n, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok((pool, handles))
    }

    #[test]
    fn values_keep_their_handles() -> Result {
        let (mut pool, handles) = filled(3 * CELLS + 1)?;
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
        let (mut pool, handles) = filled(2 * CELLS)?;
        for handle in handles.iter().step_by(3) {
            pool.remove(*handle);
        }
        let freed = 2 * CELLS - pool.len();
        for _ in 0..freed {
            pool.insert(7, GFP_KERNEL)?;
        }
        assert_eq!(pool.chunks(), 2);
        assert!(pool.open.is_none());
        Ok(())
    }

    #[test]
    fn an_empty_pool_is_as_new() -> Result {
        let (mut pool, handles) = filled(2 * CELLS)?;
        for handle in handles {
            pool.remove(handle);
        }
        assert_eq!((pool.chunks(), pool.next_open.len()), (0, 0));
        assert!(pool.handles().next().is_none());
        for _ in 0..2 {
            for n in 0..CELLS + 1 {
                let handle = pool.insert(n, GFP_KERNEL)?;
                assert_eq!(Table::<usize>::position(handle), (n / CELLS, n % CELLS));
            }
            pool.clear();
            assert!(pool.len() == 0 && pool.handles().next().is_none());
            assert_eq!((pool.chunks(), pool.next_open.len()), (0, 0));
        }
        Ok(())
    }

    /// A type with few handles.
    #[derive(Default)]
    struct Rare(usize);

    impl Rare {
        const IN_CHUNK: usize = 100;
    }

    impl Named for Rare {
        type Name = Self;
    }

    impl Stored for Rare {
        const HANDLES: usize = 2 * Self::IN_CHUNK + 50;
        type Chunk = [Self; Self::IN_CHUNK];
        type Memory = Pages;
    }

    #[test]
    fn a_pool_without_a_handle_left_takes_no_value() -> Result {
        let mut pool = Pool::new();
        let mut handles = KVec::new();
        for n in 0..Rare::HANDLES {
            handles.push(pool.insert(Rare(n), GFP_KERNEL)?, GFP_KERNEL)?;
        }
        for _ in 0..3 {
            let refused = pool.insert(Rare(0), GFP_KERNEL);
            assert_eq!(refused.err(), Some(PoolError::NoHandle));
        }
        assert_eq!((pool.len(), pool.chunks()), (Rare::HANDLES, 3));
        // Each removal makes room for one value, in any chunk.
        for at in [Rare::HANDLES - 1, 7, 150] {
            assert_eq!(pool.remove(handles[at]).0, at);
            assert_eq!(pool.insert(Rare(at), GFP_KERNEL)?, handles[at]);
            assert!(pool.insert(Rare(0), GFP_KERNEL).is_err());
        }
        for handle in handles {
            pool.remove(handle);
        }
        assert_eq!((pool.len(), pool.chunks()), (0, 0));
        Ok(())
    }

    #[test]
    fn values_are_found_one_after_another_while_they_go() -> Result {
        let (mut pool, _) = filled(2 * CELLS + 5)?;
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

    /// Whether the chunks are sound, and each that has room is in the list once, and no other.
    fn is_sound<T: Stored>(pool: &Pool<T>) -> bool {
        let open = successors(pool.open, |at| pool.next_open[*at as usize]);
        let has_room = |at: &usize| !pool.is_full(*at);
        let with_room = (0..pool.chunks()).filter(has_room).count();
        let listed = || open.clone().take(with_room + 1).map(|at| at as usize);
        pool.table.is_sound()
            && pool.next_open.len() == pool.chunks()
            && listed().count() == with_room
            && listed().all(|at| has_room(&at))
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
