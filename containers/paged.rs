// SPDX-License-Identifier: GPL-2.0

//! Arrays that grow and shrink at their end, one page at a time.
//!
//! A large vector grows by copying all of its elements to a large contiguous allocation. The elements
//! of a [`Paged`] array never move: they are stored in single pages, which a directory of two levels
//! points to. The lower level consists of vectors of up to 512 pointers, the upper level is a vector
//! of those. Only these vectors are ever copied. For 2^28 elements of four bytes the upper level takes
//! 12 KiB, and 96 KiB for 2^31; above a page, `kvmalloc()` falls back to single pages.
//!
//! The lower level takes 2 MiB for 2^28 elements of four bytes, 1 GiB. So an access costs one cache
//! miss for the element, like an access to a vector, and two loads that mostly hit. Pages come from the
//! kernel's linear map and not from `vmalloc()`, so they share the huge entries that the TLB has for
//! that.

#![deny(unsafe_code)]

use crate::kernel_api::{
    kthread,
    pages::Pages, //
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
    page::PAGE_SIZE,
    prelude::*, //
};
use pin_init::init_array_from_fn;

/// Pointers in a page.
pub(crate) const POINTERS: usize = in_page::<usize>();

/// A page of elements.
pub(crate) type Page<T, const N: usize> = Box<[T; N], Pages>;

type Directory<T, const N: usize> = KVVec<Page<T, N>>;

/// How many values of a type fill a page.
pub(crate) const fn in_page<T>() -> usize {
    PAGE_SIZE / size_of::<T>()
}

/// Allocates an array of default values.
///
/// # Errors
///
/// Fails without memory.
pub(crate) fn new_array<T: Default, const N: usize, A: Allocator + 'static>(
    flags: Flags,
) -> Result<Box<[T; N], A>, AllocError> {
    let new = Box::init(init_array_from_fn(|_| T::default()), flags);
    new.map_err(|_: Error| AllocError)
}

/// See the [module's description](self). `N` is the number of elements per page, a power of two.
pub(crate) struct Paged<T, const N: usize> {
    /// Has pages for exactly the first `len` elements.
    directories: KVVec<Directory<T, N>>,
    len: usize,
}

impl<T: Default, const N: usize> Paged<T, N> {
    const IN_DIRECTORY: usize = N * POINTERS;

    pub(crate) const fn new() -> Self {
        const { assert!(N.is_power_of_two() && N * size_of::<T>() <= PAGE_SIZE) };
        Self {
            directories: KVVec::new(),
            len: 0,
        }
    }

    /// The number of elements.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Element number `at`, or `None` beyond the end.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        (at < self.len).then(|| &self[at])
    }

    /// Appends an element with the default value.
    ///
    /// # Errors
    ///
    /// Fails without memory for another page; the array is unchanged then.
    pub(crate) fn grow(&mut self, flags: Flags) -> Result<(), AllocError> {
        if self.len % N == 0 {
            self.add_page(flags)?;
        }
        self.len += 1;
        Ok(())
    }

    fn add_page(&mut self, flags: Flags) -> Result<(), AllocError> {
        let directory = self.len / Self::IN_DIRECTORY;
        if directory == self.directories.len() {
            self.directories.push(KVVec::new(), flags)?;
        }
        self.directories[directory].push(new_array(flags)?, flags)
    }

    /// Removes the last element, and frees its page if it was the only one there.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        let value = core::mem::take(&mut self[last]);
        self.len = last;
        if last % N == 0 {
            self.drop_page();
        }
        Some(value)
    }

    /// Drops all elements from number `len` on, which must be the first of a page. May sleep.
    pub(crate) fn truncate(&mut self, len: usize) {
        debug_assert!(len % N == 0);
        while self.len > len {
            self.len = (self.len - 1) / N * N;
            self.drop_page();
            kthread::cond_resched();
        }
    }

    /// Frees the last page, which has no elements any more, and what is empty with it.
    fn drop_page(&mut self) {
        let directory = self.len / Self::IN_DIRECTORY;
        self.directories[directory].pop();
        if self.len % Self::IN_DIRECTORY == 0 {
            self.directories.truncate(directory);
        }
        if self.len == 0 {
            self.directories = KVVec::new();
        }
    }
}

impl<T: Default, const N: usize> Index<usize> for Paged<T, N> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        debug_assert!(at < self.len);
        &self.directories[at / Self::IN_DIRECTORY][at / N % POINTERS][at % N]
    }
}

impl<T: Default, const N: usize> IndexMut<usize> for Paged<T, N> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        debug_assert!(at < self.len);
        &mut self.directories[at / Self::IN_DIRECTORY][at / N % POINTERS][at % N]
    }
}

#[kernel::macros::kunit_tests(ksm_rs_paged)]
mod tests {
    use super::*;
    use crate::testing::random::Random;

    const IN_PAGE: usize = in_page::<u64>();

    fn numbers(count: usize) -> Result<Paged<u64, IN_PAGE>> {
        let mut array = Paged::new();
        for number in 0..count {
            array.grow(GFP_KERNEL)?;
            array[number] = number as u64;
        }
        Ok(array)
    }

    #[test]
    fn elements_stay_when_an_array_grows() -> Result {
        let first = IN_PAGE * POINTERS;
        for count in [0, 1, IN_PAGE, IN_PAGE + 1, first, first + 1] {
            let array = numbers(count)?;
            assert_eq!(array.len(), count);
            assert!((0..count).all(|at| array.get(at) == Some(&(at as u64))));
            assert!(array.get(count).is_none() && array.get(usize::MAX).is_none());
        }
        Ok(())
    }

    #[test]
    fn an_array_has_the_pages_that_it_needs() -> Result {
        let pages = |array: &Paged<u64, IN_PAGE>| {
            let directories = array.directories.iter();
            directories.map(|pages| pages.len()).sum::<usize>()
        };
        let mut array = numbers(3 * IN_PAGE + 1)?;
        assert_eq!((pages(&array), array.directories.len()), (4, 1));
        assert_eq!(array.pop(), Some(3 * IN_PAGE as u64));
        assert_eq!(pages(&array), 3);
        array.truncate(IN_PAGE);
        assert_eq!((pages(&array), array.len()), (1, IN_PAGE));
        array.truncate(2 * IN_PAGE);
        assert_eq!(array.len(), IN_PAGE);
        array.truncate(0);
        assert_eq!((array.len(), array.directories.capacity()), (0, 0));
        assert!(array.pop().is_none());
        Ok(())
    }

    #[test]
    fn what_comes_after_a_truncation_is_new() -> Result {
        let mut array = numbers(2 * IN_PAGE)?;
        array.truncate(0);
        for _ in 0..IN_PAGE {
            array.grow(GFP_KERNEL)?;
        }
        assert!((0..IN_PAGE).all(|at| array[at] == 0));
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut random = Random::new(27);
        let mut array = Paged::<u64, IN_PAGE>::new();
        let mut model = KVVec::<u64>::new();
        for _ in 0..200 {
            let count = random.below(3 * IN_PAGE);
            match random.below(10) {
                0 => {
                    let len = random.below(model.len() + 1) / IN_PAGE * IN_PAGE;
                    array.truncate(len);
                    model.truncate(len);
                }
                1..6 => {
                    for _ in 0..count {
                        let value = random.below(1 << 32) as u64;
                        array.grow(GFP_KERNEL)?;
                        array[model.len()] = value;
                        model.push(value, GFP_KERNEL)?;
                    }
                }
                _ => {
                    for _ in 0..count {
                        assert_eq!(array.pop(), model.pop());
                    }
                }
            }
            assert_eq!(array.len(), model.len());
            assert!((0..model.len()).all(|at| array[at] == model[at]));
        }
        Ok(())
    }
}
