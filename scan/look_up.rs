// SPDX-License-Identifier: GPL-2.0

//! Whether and how each page of a batch is looked up in this scan.

#![deny(unsafe_code)]

use crate::{
    mm::{
        held_pages::{
            HeldPage,
            HeldPages, //
        },
        ksm_page::ids::ItemId,
        page::Page, //
    },
    page::checksum::{
        Keys,
        UNKNOWN, //
    },
    policy::shared::Shared,
    records::Records,
    rmap_item::Place, //
};

/// How many pages before its turn a page is fetched.
pub(super) const PAGES_AHEAD: usize = 2;

/// How many pages before its turn the beginning of a page is fetched, and with it the translation
/// of its address.
const BEGINNINGS_AHEAD: usize = 6;

/// A candidate that is not merged.
pub(crate) struct UnmergedPage {
    pub(super) item: ItemId,
    pub(super) page: HeldPage,
    pub(super) look_up: LookUp,
}

impl UnmergedPage {
    /// Whether the page will be read when it is looked up: any other has been read a moment ago.
    pub(super) fn is_to_be_read(&self) -> bool {
        self.look_up == LookUp::ByLastChecksum
    }
}

/// Whether and how a page is looked up in this scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LookUp {
    /// It is not: its checksum has changed since the last scan, or it waits where others find it.
    NotNow,
    /// By its checksum, which is that of the last scan.
    ByChecksum,
    /// By the checksum of the last scan, which is that of a KSM page, or of zeros. The comparison with
    /// that page will show whether the content is still the same: nothing need be read twice.
    ByLastChecksum,
}

/// Decides by the checksums that pages have, and had in the last scan.
pub(super) struct LookUpChoice<'a> {
    pub(super) shared: &'a Shared,
    pub(super) records: &'a mut Records,
    pub(super) keys: &'a Keys,
}

impl LookUpChoice<'_> {
    /// Decides on all pages of a batch.
    pub(super) fn choose_all(&mut self, held: &HeldPages, all: &mut [UnmergedPage]) {
        for index in 0..all.len() {
            let look_up = self.look_up_for(held, &all[index..]);
            all[index].look_up = look_up.unwrap_or(LookUp::NotNow);
        }
    }

    /// How the first page of `rest` is looked up.
    fn look_up_for(&mut self, held: &HeldPages, rest: &[UnmergedPage]) -> Option<LookUp> {
        let later = |ahead: usize| held.get(rest.get(ahead)?.page);
        let (item, page) = (&rest.first()?.item, later(0)?);
        if self.was_that_of_ksm(*item, page) {
            return Some(LookUp::ByLastChecksum);
        }
        if let Some(far) = later(BEGINNINGS_AHEAD) {
            far.prefetch(0..1);
        }
        let unchanged = self.is_unchanged(*item, page, later(PAGES_AHEAD).unwrap_or(page));
        // In the unstable tree others find it.
        let is_waiting = self.records.place(*item) == Place::Unstable;
        if !unchanged || is_waiting && !self.is_to_be_renewed(*item) {
            return None;
        }
        self.records.leave_tree(*item);
        self.records.prefetch_unstable_root(*item, page);
        Some(LookUp::ByChecksum)
    }

    fn is_to_be_renewed(&self, item: ItemId) -> bool {
        let smart_scan = self.shared.tunables.smart_scan.is_set();
        self.records.is_to_be_renewed(item, smart_scan)
    }

    /// Whether the page's checksum of the last scan is that of a KSM page, or of the zero page.
    fn was_that_of_ksm(&self, item: ItemId, page: &Page) -> bool {
        let checksum = self.records.checksum(item);
        if checksum == UNKNOWN {
            return false;
        }
        let use_zero_pages = self.shared.tunables.use_zero_pages.is_set();
        use_zero_pages && self.keys.is_that_of_zeros(checksum)
            || self.records.has_stable(page, checksum)
    }

    /// Whether the content of `page` is that of the last scan; has the CPU fetch `later` meanwhile.
    pub(super) fn is_unchanged(&mut self, item: ItemId, page: &Page, later: &Page) -> bool {
        let keys = self.keys;
        let checksum =
            page.with_content(|content| later.with_content(|ahead| keys.checksum(content, ahead)));
        self.records.note_checksum(item, checksum)
    }
}

#[kernel::macros::kunit_tests(ksm_rs_look_up)]
mod tests {
    use super::*;
    use crate::{
        containers::rbtree::Verdict,
        mm::page::{
            fresh,
            PinnedPage, //
        },
        rmap_item::ListCursor,
        unstable_tree::Outcome, //
    };
    use kernel::prelude::*;

    /// After so many scans each page that waits has looked for its equals anew.
    const SCANS: usize = 8;

    struct Fixture {
        records: Records,
        shared: Pin<KBox<Shared>>,
        keys: Keys,
        items: KVec<ItemId>,
    }

    impl Fixture {
        /// Knows nothing but the addresses of so many pages.
        fn new(pages: usize) -> Result<Self> {
            let (mut records, front) = Records::with_items(pages)?;
            let items = all_items(&mut records, front)?;
            for item in items.iter() {
                records.make_searchable(*item)?;
            }
            let shared = KBox::pin_init(Shared::new(records.counters()), GFP_KERNEL)?;
            shared.tunables.smart_scan.set(0);
            Ok(Self {
                records,
                shared,
                keys: Keys::new(7),
                items,
            })
        }

        /// A scan meets all of `pages`; returns how each is to be looked up.
        fn scan(&mut self, pages: &[PinnedPage]) -> Result<KVec<LookUp>> {
            self.records.begin_scan();
            let mut held = HeldPages::with_capacity(pages.len())?;
            let mut all = KVec::with_capacity(pages.len(), GFP_KERNEL)?;
            for (item, page) in self.items.iter().zip(pages) {
                let unmerged = UnmergedPage {
                    item: *item,
                    page: held.hold(page.share()).ok_or(ENOMEM)?,
                    look_up: LookUp::NotNow,
                };
                all.push(unmerged, GFP_KERNEL)?;
            }
            let mut choice = LookUpChoice {
                shared: &self.shared,
                records: &mut self.records,
                keys: &self.keys,
            };
            choice.choose_all(&held, &mut all);
            let mut chosen = KVec::new();
            for unmerged in all.iter() {
                chosen.push(unmerged.look_up, GFP_KERNEL)?;
            }
            Ok(chosen)
        }

        /// Lets page number `at` wait in the unstable tree.
        fn let_wait(&mut self, at: usize, page: &PinnedPage) {
            let item = self.items[at];
            let outcome = self
                .records
                .search_or_wait(item, page, |_, _| Verdict::Stop);
            assert!(matches!(outcome, Outcome::Inserted));
        }
    }

    fn all_items(records: &mut Records, front: ListCursor) -> Result<KVec<ItemId>> {
        let (mut cursor, mut items) = (front, KVec::new());
        while let Some((item, _)) = records.walk_view().next(&cursor) {
            items.push(item, GFP_KERNEL)?;
            cursor.step_over(item);
        }
        Ok(items)
    }

    #[test]
    fn a_page_is_looked_up_when_it_has_not_changed() -> Result {
        let mut fixture = Fixture::new(2)?;
        let (one, two, three) = (fresh::page(1)?, fresh::page(2)?, fresh::page(3)?);
        let pages = [one.share(), two.share()];
        assert_eq!(fixture.scan(&pages)?[..], [LookUp::NotNow, LookUp::NotNow]);
        assert_eq!(
            fixture.scan(&pages)?[..],
            [LookUp::ByChecksum, LookUp::ByChecksum]
        );
        let changed = [one, three];
        assert_eq!(
            fixture.scan(&changed)?[..],
            [LookUp::ByChecksum, LookUp::NotNow]
        );
        Ok(())
    }

    #[test]
    fn a_page_that_waits_is_looked_up_in_one_scan_of_eight() -> Result {
        let mut fixture = Fixture::new(1)?;
        let pages = [fresh::page(1)?];
        fixture.scan(&pages)?;
        fixture.scan(&pages)?;
        let mut looked_up = 0;
        for _ in 0..3 * SCANS {
            if fixture.records.place(fixture.items[0]) == Place::Nowhere {
                fixture.let_wait(0, &pages[0]);
            }
            looked_up += usize::from(fixture.scan(&pages)?[0] == LookUp::ByChecksum);
        }
        assert_eq!(looked_up, 3);
        Ok(())
    }

    #[test]
    fn a_page_that_has_changed_leaves_the_tree() -> Result {
        let mut fixture = Fixture::new(1)?;
        let page = fresh::page(1)?;
        fixture.scan(&[page.share()])?;
        fixture.let_wait(0, &page);
        assert_eq!(fixture.records.counters().pages_unshared(), 1);
        assert!(fixture.scan(&[fresh::page(2)?])?[0] == LookUp::NotNow);
        assert_eq!(fixture.records.counters().pages_unshared(), 0);
        Ok(())
    }

    #[test]
    fn a_page_that_held_zeros_is_compared_with_the_zero_page() -> Result {
        let mut fixture = Fixture::new(1)?;
        let pages = [fresh::page(0)?];
        for (use_zero_pages, look_up) in [(0, LookUp::ByChecksum), (1, LookUp::ByLastChecksum)] {
            fixture.shared.tunables.use_zero_pages.set(use_zero_pages);
            fixture.scan(&pages)?;
            assert_eq!(fixture.scan(&pages)?[0], look_up);
            // It is not read before it is compared.
            assert!(fixture.scan(&[fresh::page(1)?])?[0] != LookUp::ByChecksum);
        }
        Ok(())
    }
}
