// SPDX-License-Identifier: GPL-2.0

//! What is known of one page of one address space, and the list of these, ordered by address, that
//! each tracked address space has.
//!
//! The list is not in sync with the address space: an item may name a page, or a vma, that is long
//! gone. When the scan, which goes through both in the order of addresses, passes an item that it
//! has met no page for, the item is collected.

#![deny(unsafe_code)]

use crate::{
    forest::Keyed,
    pool::{
        raw_or_zero,
        Handle,
        Pool, //
    },
    rbtree::{
        Links,
        TreeNode, //
    },
    slots::MmSlot,
    stable_node::StableNode, //
};
use kernel::{
    page::PAGE_SHIFT,
    sync::Arc, //
};

/// The number of a full scan, of which only the lowest bits are kept.
///
/// Each item is met or collected in every full scan that is not broken off, so a number that comes
/// again is seldom found, and then keeps an item for one scan more. The number before the first scan
/// does not come again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Pass(u8);

impl Pass {
    const MASK: u8 = 0x3f;

    pub(crate) fn next(self) -> Self {
        Self(self.0 % Self::MASK + 1)
    }
}

/// How many scans a page was looked up in vain, and how many it is to be passed over, both up to
/// [`SmartAge::MAX`].
#[derive(Clone, Copy, Default)]
struct SmartAge(u8);

impl SmartAge {
    const MAX: u8 = 15;

    /// A page of this age has been through all that can lead to a merge.
    const GROWN_UP: u8 = 3;

    fn new(age: u8, skips: u8) -> Self {
        Self(age << 4 | skips)
    }

    /// One scan later: whether the page is to be passed over in it.
    fn advance(&mut self) -> bool {
        let (age, skips) = (self.0 >> 4, self.0 & Self::MAX);
        let older = (age + 1).min(Self::MAX);
        let skip = age >= Self::GROWN_UP && skips > 0;
        let left = match skip {
            true => skips - 1,
            false if age >= Self::GROWN_UP => Self::skips_at(age),
            false => skips,
        };
        *self = Self::new(older, left);
        skip
    }

    /// The longer a page has found no equal, the more rarely it is looked up.
    fn skips_at(age: u8) -> u8 {
        match age {
            0..=3 => 1,
            4..=5 => 2,
            6..=8 => 4,
            _ => 8,
        }
    }
}

/// Where an item stands, beside its list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In no tree: new, or its page changes too often.
    Nowhere,
    /// In the unstable tree.
    Unstable,
    /// In the unstable tree before that was forgotten; it counts as if it still was.
    Forgotten,
    /// Its page is merged: the mapping with this index of a stable node.
    Stable(Handle<StableNode>, u32),
}

/// A [`Place`] in one byte: in the top bits what place it is, in the others the number of a scan that
/// has met the item there.
#[derive(Clone, Copy, Default)]
struct Tag(u8);

impl Tag {
    const NOWHERE: u8 = 0;
    const UNSTABLE: u8 = 0x40;
    const STABLE: u8 = 0x80;
    const FORGOTTEN: u8 = 0xc0;

    fn kind(self) -> u8 {
        self.0 & !Pass::MASK
    }

    fn pass(self) -> Pass {
        Pass(self.0 & Pass::MASK)
    }
}

/// The metadata of one page: 32 bytes, two to a cache line.
#[derive(Default)]
pub(crate) struct RmapItem {
    /// The number of the virtual page, in two parts so that the rest finds room in one word.
    page_low: u32,
    page_high: u16,
    age: SmartAge,
    tag: Tag,
    mm: u32,
    next: u32,
    checksum: u32,
    /// The links in the unstable tree, or the node and index of a merged page.
    words: [u32; 3],
}

const _: () = assert!(core::mem::size_of::<RmapItem>() == 32);

impl RmapItem {
    /// An item for the page at `address`.
    pub(crate) fn new(mm: Handle<TrackedMm>, address: usize) -> Self {
        let page = address >> PAGE_SHIFT;
        Self {
            page_low: page as u32,
            page_high: (page >> u32::BITS) as u16,
            mm: mm.raw(),
            ..Self::default()
        }
    }

    /// The virtual address of the page.
    pub(crate) fn address(&self) -> usize {
        ((self.page_high as usize) << u32::BITS | self.page_low as usize) << PAGE_SHIFT
    }

    /// The address space that the item belongs to.
    pub(crate) fn mm(&self) -> Option<Handle<TrackedMm>> {
        Handle::from_raw(self.mm)
    }

    /// Where the item stands.
    pub(crate) fn place(&self) -> Place {
        match (self.tag.kind(), Handle::from_raw(self.words[0])) {
            (Tag::UNSTABLE, _) => Place::Unstable,
            (Tag::FORGOTTEN, _) => Place::Forgotten,
            (Tag::STABLE, Some(node)) => Place::Stable(node, self.words[1]),
            _ => Place::Nowhere,
        }
    }

    /// Notes where the item stands; to put it there is the caller's part.
    pub(crate) fn set_place(&mut self, place: Place) {
        self.tag = Tag(match place {
            Place::Nowhere => Tag::NOWHERE,
            Place::Unstable => Tag::UNSTABLE,
            Place::Forgotten => Tag::FORGOTTEN,
            Place::Stable(node, index) => {
                self.words = [node.raw(), index, 0];
                // Once it is written to, it is a new page.
                self.age = SmartAge::default();
                Tag::STABLE
            }
        });
    }

    /// Notes that the mapping of the item, which is in place [`Place::Stable`], has another index.
    pub(crate) fn set_index(&mut self, index: u32) {
        self.words[1] = index;
    }

    /// Notes that the unstable tree, if the item was in it, was forgotten.
    pub(crate) fn note_forgotten_tree(&mut self) {
        if self.place() == Place::Unstable {
            self.set_place(Place::Forgotten);
        }
    }

    /// Whether the item stands in the unstable tree, or counts as if it did.
    pub(crate) fn is_unshared(&self) -> bool {
        matches!(self.place(), Place::Unstable | Place::Forgotten)
    }

    /// Notes that a scan has met the page, which stays where it is.
    pub(crate) fn note_met(&mut self, pass: Pass) {
        self.tag = Tag(self.tag.kind() | pass.0);
    }

    /// Whether a scan has met the page, and passed over it or let it stay where it is.
    pub(crate) fn was_met(&self, pass: Pass) -> bool {
        self.tag.pass() == pass
    }

    /// Whether this scan is to pass over the page; to be asked once a scan.
    pub(crate) fn is_to_be_skipped(&mut self) -> bool {
        self.tag.kind() != Tag::STABLE && self.age.advance()
    }

    /// Notes the checksum of the page's content; the item is in no tree.
    pub(crate) fn set_checksum(&mut self, checksum: u32) {
        self.checksum = checksum;
    }
}

impl TreeNode for RmapItem {
    #[inline]
    fn links(&self) -> Links {
        Links::from_words(self.words)
    }

    #[inline]
    fn set_links(&mut self, links: Links) {
        self.words = links.into_words();
    }
}

impl Keyed for RmapItem {
    #[inline]
    fn checksum(&self) -> u32 {
        self.checksum
    }
}

/// An address space of which pages are tracked.
#[derive(Default)]
pub(crate) struct TrackedMm {
    slot: Option<Arc<MmSlot>>,
    first: u32,
}

impl TrackedMm {
    pub(crate) fn new(slot: Arc<MmSlot>) -> Self {
        Self {
            slot: Some(slot),
            first: 0,
        }
    }

    /// The registration of the address space.
    pub(crate) fn slot(&self) -> Option<&Arc<MmSlot>> {
        self.slot.as_ref()
    }

    /// Notes that all items are gone.
    pub(crate) fn forget_items(&mut self) {
        self.first = 0;
    }

    /// Whether no page is tracked any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.first == 0
    }
}

/// A place between two items of an address space.
#[derive(Clone, Copy)]
pub(crate) struct ListCursor {
    mm: Handle<TrackedMm>,
    /// The item before the place, or none at the beginning.
    previous: Option<Handle<RmapItem>>,
}

impl ListCursor {
    /// The beginning of the list of `mm`.
    pub(crate) fn front(mm: Handle<TrackedMm>) -> Self {
        Self { mm, previous: None }
    }

    /// The address space whose list this is.
    pub(crate) fn mm(&self) -> Handle<TrackedMm> {
        self.mm
    }

    /// The item after the place.
    pub(crate) fn next(
        &self,
        mms: &Pool<TrackedMm>,
        items: &Pool<RmapItem>,
    ) -> Option<Handle<RmapItem>> {
        Handle::from_raw(match self.previous {
            Some(previous) => items[previous].next,
            None => mms[self.mm].first,
        })
    }

    /// Moves behind `item`, which is the next.
    pub(crate) fn step_over(&mut self, item: Handle<RmapItem>) {
        self.previous = Some(item);
    }

    /// Links `item` in here, and moves behind it.
    pub(crate) fn insert(
        &mut self,
        mms: &mut Pool<TrackedMm>,
        items: &mut Pool<RmapItem>,
        item: Handle<RmapItem>,
    ) {
        items[item].next = raw_or_zero(self.next(mms, items));
        self.set_next(mms, items, item.raw());
        self.step_over(item);
    }

    /// Unlinks `item`, which is the next.
    pub(crate) fn unlink(
        &mut self,
        mms: &mut Pool<TrackedMm>,
        items: &mut Pool<RmapItem>,
        item: Handle<RmapItem>,
    ) {
        let after = items[item].next;
        self.set_next(mms, items, after);
    }

    fn set_next(&mut self, mms: &mut Pool<TrackedMm>, items: &mut Pool<RmapItem>, next: u32) {
        match self.previous {
            Some(previous) => items[previous].next = next,
            None => mms[self.mm].first = next,
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_rmap_item)]
mod tests {
    use super::*;
    use crate::random::Random;
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    struct Fixture {
        mms: Pool<TrackedMm>,
        items: Pool<RmapItem>,
        mm: Handle<TrackedMm>,
    }

    impl Fixture {
        fn new() -> Result<Self> {
            let mut mms = Pool::new();
            let mm = mms.insert(TrackedMm::default(), GFP_KERNEL)?;
            Ok(Self {
                mms,
                items: Pool::new(),
                mm,
            })
        }

        fn append(&mut self, cursor: &mut ListCursor, address: usize) -> Result {
            let item = RmapItem::new(self.mm, address);
            let item = self.items.insert(item, GFP_KERNEL)?;
            cursor.insert(&mut self.mms, &mut self.items, item);
            Ok(())
        }

        fn addresses(&self) -> Result<KVec<usize>> {
            let mut cursor = ListCursor::front(self.mm);
            let mut addresses = KVec::new();
            while let Some(item) = cursor.next(&self.mms, &self.items) {
                addresses.push(self.items[item].address(), GFP_KERNEL)?;
                cursor.step_over(item);
            }
            Ok(addresses)
        }
    }

    #[test]
    fn an_item_keeps_what_it_is_told() {
        let mm = Handle::from_raw(7);
        let node = Handle::from_raw(9);
        let (Some(mm), Some(node)) = (mm, node) else {
            return;
        };
        for address in [0, PAGE_SIZE, 0x7fff_ffff_f000, 0x00ff_ffff_ffff_f000] {
            let mut item = RmapItem::new(mm, address);
            assert_eq!(item.place(), Place::Nowhere);
            for place in [
                Place::Unstable,
                Place::Stable(node, 255),
                Place::Forgotten,
                Place::Nowhere,
            ] {
                item.set_place(place);
                assert_eq!(item.place(), place);
            }
            assert_eq!(item.address(), address);
            assert_eq!(item.mm(), Some(mm));
        }
    }

    #[test]
    fn an_item_knows_which_scan_has_met_it() {
        let (Some(node), mut pass) = (Handle::from_raw(9), Pass::default()) else {
            return;
        };
        for _ in 0..200 {
            let mut item = RmapItem::default();
            let before = pass;
            pass = pass.next();
            for place in [
                Place::Nowhere,
                Place::Unstable,
                Place::Forgotten,
                Place::Stable(node, 3),
            ] {
                item.set_place(place);
                assert!(!item.was_met(pass));
                item.note_met(pass);
                assert!(item.was_met(pass) && !item.was_met(before));
                assert_eq!(item.place(), place);
            }
            assert!(pass != Pass::default());
        }
    }

    #[test]
    fn a_page_without_equals_is_skipped_more_and_more() {
        let mut item = RmapItem::default();
        let mut looked_at = 0u64;
        for scan in 0..40 {
            looked_at |= u64::from(!item.is_to_be_skipped()) << scan;
        }
        // Scans 0 to 3, then after 1 skip, 2, 4 and, from then on, 8 skips each.
        let expected = [0, 1, 2, 3, 5, 8, 13, 22, 31];
        assert_eq!(
            looked_at,
            expected.iter().fold(0, |bits, scan| bits | 1 << scan)
        );
    }

    #[test]
    fn a_merged_page_is_never_skipped_and_starts_anew() {
        let Some(node) = Handle::from_raw(3) else {
            return;
        };
        let mut item = RmapItem::default();
        for _ in 0..10 {
            item.is_to_be_skipped();
        }
        item.set_place(Place::Stable(node, 0));
        for _ in 0..20 {
            assert!(!item.is_to_be_skipped());
        }
        item.set_place(Place::Nowhere);
        for _ in 0..4 {
            assert!(!item.is_to_be_skipped());
        }
        assert!(item.is_to_be_skipped());
    }

    #[test]
    fn items_are_linked_and_unlinked_at_the_cursor() -> Result {
        let mut fixture = Fixture::new()?;
        let mut cursor = ListCursor::front(fixture.mm);
        for page in [1, 3, 5] {
            fixture.append(&mut cursor, page * PAGE_SIZE)?;
        }
        // Between the first two.
        let mut cursor = ListCursor::front(fixture.mm);
        let first = cursor.next(&fixture.mms, &fixture.items).ok_or(EINVAL)?;
        cursor.step_over(first);
        fixture.append(&mut cursor, 2 * PAGE_SIZE)?;
        assert_eq!(
            fixture.addresses()?.as_slice(),
            [1, 2, 3, 5].map(|page| page * PAGE_SIZE)
        );
        // The one after the new one, then the first.
        let third = cursor.next(&fixture.mms, &fixture.items).ok_or(EINVAL)?;
        cursor.unlink(&mut fixture.mms, &mut fixture.items, third);
        let mut cursor = ListCursor::front(fixture.mm);
        cursor.unlink(&mut fixture.mms, &mut fixture.items, first);
        assert_eq!(
            fixture.addresses()?.as_slice(),
            [2, 5].map(|page| page * PAGE_SIZE)
        );
        Ok(())
    }

    #[test]
    fn random_changes_agree_with_a_model() -> Result {
        let mut random = Random::new(23);
        let mut fixture = Fixture::new()?;
        let mut model = KVec::<usize>::new();
        for _ in 0..2000 {
            let address = random.below(64) * PAGE_SIZE;
            let mut cursor = ListCursor::front(fixture.mm);
            let mut index = 0;
            // As the scan goes: past what lies before the address, to it or its place.
            while let Some(item) = cursor.next(&fixture.mms, &fixture.items) {
                if fixture.items[item].address() >= address {
                    break;
                }
                cursor.step_over(item);
                index += 1;
            }
            if model.get(index) == Some(&address) {
                let item = cursor.next(&fixture.mms, &fixture.items).ok_or(EINVAL)?;
                cursor.unlink(&mut fixture.mms, &mut fixture.items, item);
                fixture.items.remove(item);
                model.remove(index).map_err(|_| EINVAL)?;
            } else {
                fixture.append(&mut cursor, address)?;
                model.reserve(1, GFP_KERNEL)?;
                let inserted = model.insert_within_capacity(index, address);
                assert!(inserted.is_ok());
            }
            assert_eq!(fixture.addresses()?.as_slice(), model.as_slice());
            assert_eq!(fixture.items.len(), model.len());
            assert_eq!(fixture.mms[fixture.mm].is_empty(), model.is_empty());
        }
        Ok(())
    }
}
