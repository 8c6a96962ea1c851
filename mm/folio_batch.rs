// SPDX-License-Identifier: GPL-2.0

//! Giving up references to many folios at once.
//!
//! C header: [`include/linux/folio_batch.h`](srctree/include/linux/folio_batch.h)

use crate::mm::page::PinnedPage;
use core::ptr;
use kernel::bindings;

/// References to folios that are to be given up.
///
/// To free a folio takes the lock of its LRU list and that of the list of free ones, and work to
/// uncharge it: all of which is done once for many.
///
/// # Invariants
///
/// The first `nr` folios of `batch`, which are fewer than there is room for, are alive, and this
/// object owns one reference to each.
pub(crate) struct FolioBatch {
    batch: bindings::folio_batch,
}

// SAFETY: References to folios may be dropped by any thread.
unsafe impl Send for FolioBatch {}

impl FolioBatch {
    pub(crate) fn new() -> Self {
        // INVARIANT: The batch is empty.
        Self {
            batch: bindings::folio_batch::default(),
        }
    }

    /// Takes the reference of `page`, and gives all of them up if there is no room for more.
    pub(crate) fn push(&mut self, page: PinnedPage) {
        let place = usize::from(self.batch.nr);
        // INVARIANT: The folio comes with the reference that the page had.
        self.batch.folios[place] = page.into_folio();
        self.batch.nr += 1;
        if place + 1 == self.batch.folios.len() {
            self.put_all();
        }
    }

    /// Gives up all references.
    pub(crate) fn put_all(&mut self) {
        if self.batch.nr > 0 {
            // SAFETY: By the type invariant there is one reference to each to be given up, and
            // the call empties the batch.
            unsafe { bindings::folios_put_refs(&mut self.batch, ptr::null_mut()) };
        }
    }
}

impl Drop for FolioBatch {
    fn drop(&mut self) {
        self.put_all();
    }
}

#[kernel::macros::kunit_tests(ksm_rs_folio_batch)]
mod tests {
    use super::*;
    use crate::mm::page::fresh;
    use kernel::prelude::*;

    /// A second reference to a page, and the page with the first.
    fn shared() -> Result<(PinnedPage, PinnedPage)> {
        let page = fresh::page(1)?;
        let second = page.share();
        Ok((page, second))
    }

    /// Whether nobody else has a reference to `page`.
    fn is_alone(page: &PinnedPage) -> bool {
        let locked = page.folio().lock();
        page.folio().has_no_other_user(&locked)
    }

    #[test]
    fn references_are_given_up_together() -> Result {
        let mut batch = FolioBatch::new();
        let ((one, for_one), (two, for_two)) = (shared()?, shared()?);
        batch.push(for_one);
        batch.push(for_two);
        assert!(!is_alone(&one) && !is_alone(&two));
        batch.put_all();
        assert!(is_alone(&one) && is_alone(&two));
        batch.push(one.share());
        drop(batch);
        assert!(is_alone(&one));
        Ok(())
    }

    #[test]
    fn a_full_batch_is_given_up_at_once() -> Result {
        let mut batch = FolioBatch::new();
        let page = fresh::page(1)?;
        let room = batch.batch.folios.len();
        for pushed in 1..=3 * room {
            batch.push(page.share());
            assert_eq!(is_alone(&page), pushed % room == 0);
        }
        Ok(())
    }
}
