// SPDX-License-Identifier: GPL-2.0

//! Where a KSM page is mapped: the list behind its folio's lock.
//!
//! Most KSM pages have two mappings, which stand in the list itself; further ones get memory.

#![deny(unsafe_code)]

use crate::{
    kernel_api::gfp,
    mm::ksm_page::{
        ids::ItemId,
        merged_vma::MergedVma, //
    }, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// Where a KSM page is mapped; enough to find the page table entry, and those of forks.
pub(crate) struct Mapping {
    pub(crate) vma: Arc<MergedVma>,
    /// The number of the page in its vma.
    pub(crate) page: u32,
    /// Whose mapping it is.
    pub(crate) item: ItemId,
}

const _: () = assert!(size_of::<Mapping>() == 16);

impl Mapping {
    /// The index of the page in the anon_vma's tree of vmas.
    pub(crate) fn index(&self) -> usize {
        self.vma.index(self.page)
    }
}

/// See the [module's description](self).
pub(crate) enum Mappings<T = Mapping> {
    /// The first is there if there is any.
    Few([Option<T>; 2]),
    /// Of any length: a fork lists each of its own.
    Many(KVVec<T>),
}

impl<T> Default for Mappings<T> {
    fn default() -> Self {
        Self::Few([None, None])
    }
}

impl<T> Mappings<T> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.iter().flatten().count(),
            Self::Many(many) => many.len(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let (few, many) = match self {
            Self::Few(few) => (few.as_slice(), [].as_slice()),
            Self::Many(many) => ([].as_slice(), many.as_slice()),
        };
        Iterator::chain(few.iter().flatten(), many)
    }

    /// Puts `mapping` behind the others.
    pub(crate) fn push(&mut self, mapping: T) -> Result {
        match self {
            Self::Few([first @ None, _]) => *first = Some(mapping),
            Self::Few([_, second @ None]) => *second = Some(mapping),
            Self::Few(few) => {
                let mut many = KVVec::with_capacity(2 * few.len(), gfp::for_merge())?;
                for mapping in few.iter_mut().filter_map(Option::take) {
                    many.push(mapping, gfp::for_merge())?;
                }
                many.push(mapping, gfp::for_merge())?;
                *self = Self::Many(many);
            }
            Self::Many(many) => many.push(mapping, gfp::for_merge())?,
        }
        Ok(())
    }

    /// Takes out number `index`; the last one, which is also returned if it is another, takes its
    /// place.
    pub(crate) fn take(&mut self, index: usize) -> Option<(T, Option<&T>)> {
        let last = self.pop()?;
        match self.get_mut(index) {
            Some(place) => {
                let taken = core::mem::replace(place, last);
                Some((taken, Some(place)))
            }
            None => Some((last, None)),
        }
    }

    fn pop(&mut self) -> Option<T> {
        match self {
            Self::Few([first, second]) => second.take().or_else(|| first.take()),
            Self::Many(many) => many.pop(),
        }
    }

    /// Number `index`, if there are so many.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        match self {
            Self::Few(few) => few.get(index)?.as_ref(),
            Self::Many(many) => many.get(index),
        }
    }

    fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match self {
            Self::Few(few) => few.get_mut(index)?.as_mut(),
            Self::Many(many) => many.get_mut(index),
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_mappings)]
mod tests {
    use super::*;
    use crate::testing::random::Random;

    fn numbers(count: u32) -> Result<Mappings<u32>> {
        let mut mappings = Mappings::default();
        for number in 0..count {
            mappings.push(number)?;
        }
        Ok(mappings)
    }

    #[test]
    fn mappings_come_in_the_order_in_which_they_came() -> Result {
        for count in [0, 1, 2, 3, 9] {
            let mappings = numbers(count)?;
            assert_eq!(mappings.len(), count as usize);
            assert!(mappings.iter().copied().eq(0..count));
        }
        Ok(())
    }

    #[test]
    fn the_last_one_takes_the_place_of_one_that_leaves() -> Result {
        for count in [1, 2, 3, 9] {
            for index in 0..count {
                let last = count - 1;
                let mut mappings = numbers(count)?;
                let moved = (index != last).then_some(&last);
                assert!(mappings.take(index as usize) == Some((index, moved)));
                assert_eq!(mappings.len(), last as usize);
                let expected = (0..last).map(|number| match number == index {
                    true => last,
                    false => number,
                });
                assert!(mappings.iter().copied().eq(expected));
            }
        }
        Ok(())
    }

    #[test]
    fn nothing_is_taken_from_an_empty_list() -> Result {
        let mut mappings = numbers(5)?;
        for _ in 0..5 {
            assert!(mappings.take(0).is_some());
        }
        assert!(mappings.take(0).is_none());
        mappings.push(7)?;
        assert!(mappings.iter().eq([&7]));
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut random = Random::new(22);
        let mut mappings = Mappings::default();
        let mut model = KVec::new();
        for number in 0..3000 {
            let growth = if number / 300 % 2 == 0 { 65 } else { 35 };
            if model.is_empty() || random.below(100) < growth {
                mappings.push(number)?;
                model.push(number, GFP_KERNEL)?;
            } else {
                let (index, last) = (random.below(model.len()), model.len() - 1);
                model.swap(index, last);
                let taken = model.pop().ok_or(EINVAL)?;
                assert!(mappings.take(index) == Some((taken, model.get(index))));
            }
            assert_eq!(mappings.len(), model.len());
            assert!(mappings.iter().eq(&model));
            assert!((0..=model.len()).all(|at| mappings.get(at) == model.get(at)));
        }
        Ok(())
    }
}
