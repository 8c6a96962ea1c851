// SPDX-License-Identifier: GPL-2.0

//! Pages that a batch holds, with one reference to a folio however many of its pages it wants.
//!
//! A folio can be split by one holder only. So large folios have to be released before one of their
//! pages is merged; [`HeldPages::release_large`] does that for all of them.

use crate::mm::{
    folio::Folio,
    page::{
        Page,
        PinnedPage, //
    }, //
};
use kernel::{
    alloc::AllocError,
    prelude::*, //
};

/// Names a page in a [`HeldPages`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldPage {
    pin: u16,
    part: u16,
}

impl HeldPage {
    /// Which page of its folio this is.
    pub(crate) fn part(self) -> usize {
        self.part.into()
    }

    /// Whether both were held as pages of the same folio.
    pub(crate) fn is_beside(self, other: Self) -> bool {
        self.pin == other.pin
    }
}

/// Which page of its folio a page is, and how many there are.
pub(crate) struct FolioPart {
    pub(crate) part: usize,
    pub(crate) pages: usize,
}

/// A folio that is held.
///
/// # Invariants
///
/// `first` is the first page of its folio, which has `pages` pages as long as the reference is held.
struct Pin {
    first: PinnedPage,
    pages: u16,
}

impl Pin {
    /// Holds the folio of `page`; returns which page of it that is, too.
    fn of(page: PinnedPage) -> Option<(Self, u16)> {
        // Most pages are alone, and ask for no more than this.
        if !page.folio().is_large() {
            // INVARIANT: A folio that is not large has one page.
            return Some((
                Self {
                    first: page,
                    pages: 1,
                },
                0,
            ));
        }
        let part = page.part().try_into().ok()?;
        let pages = page.folio().pages().try_into().ok()?;
        // INVARIANT: To split a folio takes the only reference that its mappings do not explain.
        let pin = Self {
            first: page.into_part(0)?,
            pages,
        };
        Some((pin, part))
    }

    /// Page number `part`, with the reference.
    fn into_part(self, part: u16) -> Option<PinnedPage> {
        match (self.pages, part) {
            (1, 0) => Some(self.first),
            _ => self.first.into_part(part.into()),
        }
    }

    fn part(&self, part: u16) -> Option<&Page> {
        if part >= self.pages {
            return None;
        }
        let page = self.first.as_raw().wrapping_add(part.into());
        // SAFETY: By the type invariant the page is part of the folio, which is not freed for as long
        // as `self` is borrowed.
        Some(unsafe { Page::from_raw(page) })
    }
}

/// See the [module's description](self).
pub(crate) struct HeldPages {
    pins: KVec<Option<Pin>>,
}

impl HeldPages {
    /// Has room for `folios` folios.
    pub(crate) fn with_capacity(folios: usize) -> Result<Self, AllocError> {
        Ok(Self {
            pins: KVec::with_capacity(folios, GFP_KERNEL)?,
        })
    }

    /// Goes on holding `page`; `None`, and `page` is released, if there is no room.
    pub(crate) fn hold(&mut self, page: PinnedPage) -> Option<HeldPage> {
        let pin = self.pins.len().try_into().ok()?;
        let (held, part) = Pin::of(page)?;
        self.pins.push_within_capacity(Some(held)).ok()?;
        Some(HeldPage { pin, part })
    }

    /// Page number `part` of `folio`, if that is held.
    pub(crate) fn find(&self, folio: &Folio, part: usize) -> Option<HeldPage> {
        let holds = |pin: &Option<Pin>| {
            pin.as_ref()
                .is_some_and(|pin| core::ptr::eq(pin.first.folio(), folio))
        };
        let pin = self.pins.iter().rposition(holds)?;
        Some(HeldPage {
            pin: pin.try_into().ok()?,
            part: part.try_into().ok()?,
        })
    }

    /// The page `distance` pages behind `page` in the same folio.
    pub(crate) fn behind(&self, page: HeldPage, distance: usize) -> Option<HeldPage> {
        let part = page.part.checked_add(distance.try_into().ok()?)?;
        let behind = HeldPage { part, ..page };
        self.get(behind).map(|_| behind)
    }

    /// The page, unless its folio was released.
    #[inline]
    pub(crate) fn get(&self, page: HeldPage) -> Option<&Page> {
        let pin = self.pins.get(usize::from(page.pin))?;
        pin.as_ref()?.part(page.part)
    }

    /// Where in its folio the page is.
    pub(crate) fn place_of(&self, page: HeldPage) -> FolioPart {
        let pin = self.pins.get(usize::from(page.pin));
        FolioPart {
            part: page.part(),
            pages: pin
                .and_then(Option::as_ref)
                .map_or(1, |pin| pin.pages.into()),
        }
    }

    /// Whether `condition` holds for `least` pages of the folio of `page`, or for more.
    pub(crate) fn has_parts(
        &self,
        page: HeldPage,
        least: usize,
        condition: impl Fn(&Page) -> bool,
    ) -> bool {
        let pages = self.place_of(page).pages;
        let parts = (0..pages).filter_map(|part| {
            let part = part.try_into().ok()?;
            self.get(HeldPage { part, ..page })
        });
        parts.filter(|part| condition(part)).take(least).count() >= least
    }

    /// Whether the folio of `page` has more pages than that one.
    pub(crate) fn is_large(&self, page: HeldPage) -> bool {
        self.place_of(page).pages > 1
    }

    /// The page, with the reference to its folio; no other page of the folio is held then.
    pub(crate) fn take(&mut self, page: HeldPage) -> Option<PinnedPage> {
        let pin = self.pins.get_mut(usize::from(page.pin))?.take()?;
        pin.into_part(page.part)
    }

    /// Releases all folios that have more than one page.
    pub(crate) fn release_large(&mut self) {
        for pin in &mut self.pins {
            if pin.as_ref().is_some_and(|pin| pin.pages > 1) {
                *pin = None;
            }
        }
    }

    /// Releases all folios.
    pub(crate) fn clear(&mut self) {
        self.pins.clear();
    }
}

#[kernel::macros::kunit_tests(ksm_rs_held_pages)]
mod tests {
    use super::*;
    use crate::mm::page::fresh;

    /// Whether nobody else has a reference to the folio of `page`.
    fn is_alone(page: &PinnedPage) -> bool {
        let locked = page.folio().lock();
        page.folio().has_no_other_user(&locked)
    }

    #[test]
    fn a_large_folio_is_held_by_one_reference() -> Result {
        let large = fresh::large(2)?;
        let mut held = HeldPages::with_capacity(2)?;
        let first = held.hold(large.share()).ok_or(EINVAL)?;
        let found = held.find(large.folio(), 3).ok_or(EINVAL)?;
        assert!(held.behind(first, 3) == Some(found) && found.is_beside(first));
        assert!(held.behind(first, 4).is_none() && !is_alone(&large));
        for part in 0..4 {
            let page = held.behind(first, part).and_then(|page| held.get(page));
            assert!(page.is_some_and(|page| page.pfn() == large.pfn() + part));
        }
        assert!(held.is_large(found) && held.place_of(found).part == 3);
        held.release_large();
        assert!(held.get(first).is_none() && held.take(found).is_none());
        assert!(is_alone(&large));
        Ok(())
    }

    #[test]
    fn a_small_page_can_be_taken_once() -> Result {
        let (one, two) = (fresh::page(1)?, fresh::page(2)?);
        let mut held = HeldPages::with_capacity(2)?;
        let first = held.hold(one.share()).ok_or(EINVAL)?;
        let second = held.hold(two.share()).ok_or(EINVAL)?;
        assert!(held.hold(one.share()).is_none() && !is_alone(&one));
        assert!(!first.is_beside(second) && !held.is_large(first));
        held.release_large();
        let taken = held.take(second).ok_or(EINVAL)?;
        assert!(taken.pfn() == two.pfn() && held.get(second).is_none());
        assert!(held.get(first).is_some() && held.take(second).is_none());
        held.clear();
        assert!(is_alone(&one) && !is_alone(&two));
        drop(taken);
        assert!(is_alone(&two));
        Ok(())
    }

    #[test]
    fn parts_are_counted_up_to_what_is_wanted() -> Result {
        let large = fresh::large(3)?;
        let mut held = HeldPages::with_capacity(1)?;
        let first = held.hold(large.share()).ok_or(EINVAL)?;
        let is_odd = |page: &Page| page.pfn() % 2 == 1;
        assert!(held.has_parts(first, 4, is_odd) && !held.has_parts(first, 5, is_odd));
        Ok(())
    }
}
