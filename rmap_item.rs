// SPDX-License-Identifier: GPL-2.0

//! The record of one page of one address space, and the list of these, ordered by address, that
//! each tracked address space has.
//!
//! The list is not in sync with the address space: an item may name a page, or a vma, that is long
//! gone. When the scan, which goes through both in the order of addresses, passes an item that it
//! has met no page for, the item is collected.

#![deny(unsafe_code)]

use crate::{
    containers::{
        handle::{
            raw_or_zero,
            Handle,
            Named, //
        },
        handle_table::{
            per_page,
            Stored, //
        },
        pool::Pool, //
    },
    kernel_api::pages::Pages,
    mm::ksm_page::ids::{
        Item,
        ItemId,
        NodeId,
        Space,
        SpaceId, //
    },
    records::{
        registry::MmSlot,
        unstable_node::UnstableNode, //
    }, //
};
use kernel::{
    alloc::allocator::Kmalloc,
    page::PAGE_SHIFT,
    sync::Arc, //
};

/// The lowest bits of the number of a full scan.
///
/// Each item is met or collected in every full scan that is not broken off, so a number that comes
/// again is seldom found, and then keeps an item for one scan more. The number before the first scan
/// does not come again.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ScanNumber(u8);

impl ScanNumber {
    const MASK: u8 = 0x3f;

    pub(crate) fn next(self) -> Self {
        Self(self.0 % Self::MASK + 1)
    }
}

/// How many scans a page was looked up in vain, and how many it is to be passed over, both up to
/// [`SmartAge::MAX`].
#[derive(Clone, Copy, Default)]
pub(crate) struct SmartAge(u8);

impl SmartAge {
    const MAX: u8 = 15;

    /// A page of this age has had every chance to merge.
    const OLD: u8 = 3;

    fn new(age: u8, skips: u8) -> Self {
        Self(age << 4 | skips)
    }

    fn is_old(self) -> bool {
        self.0 >> 4 >= Self::OLD
    }

    /// One scan later: whether the page is to be passed over in it.
    fn advance(&mut self) -> bool {
        let (age, skips) = (self.0 >> 4, self.0 & Self::MAX);
        let older = (age + 1).min(Self::MAX);
        let skip = self.is_old() && skips > 0;
        let left = match skip {
            true => skips - 1,
            false if self.is_old() => Self::skips_at(age),
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

/// Notes on the equals of a page that is not merged. It matters while the page is part of a large
/// folio that is not worth a split yet.
#[derive(Clone, Copy, Default)]
struct Prospects(u8);

impl Prospects {
    /// Set if the folio is worth a split.
    const SPLIT: u8 = 4;

    /// How many more searches may be in vain until the page counts as one without an equal.
    const PATIENCE: u8 = 3;

    fn has_equal(self) -> bool {
        self.0 & Self::PATIENCE > 0
    }

    /// An equal page was found.
    fn note_equal(&mut self) {
        self.0 |= Self::PATIENCE;
    }

    /// No equal page was found. One that waits for its own folio may just not be in the tree.
    fn note_no_equal(&mut self) {
        self.0 -= u8::from(self.has_equal());
    }

    fn may_split(self) -> bool {
        self.0 & Self::SPLIT > 0
    }

    fn set_may_split(&mut self, may: bool) {
        self.0 = match may {
            true => self.0 | Self::SPLIT,
            false => self.0 & !Self::SPLIT,
        };
    }
}

/// The history of a page, as its item keeps it while the page is not merged.
#[derive(Clone, Copy, Default)]
pub(crate) struct History {
    age: SmartAge,
    prospects: Prospects,
}

impl History {
    fn from_detail(detail: usize) -> Self {
        let [age, prospects, ..] = detail.to_le_bytes();
        Self {
            age: SmartAge(age),
            prospects: Prospects(prospects),
        }
    }

    fn detail(self) -> usize {
        u16::from_le_bytes([self.age.0, self.prospects.0]).into()
    }
}

/// Where an item stands, beside its list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In no tree: new, or its page changes too often.
    Nowhere,
    /// In the unstable tree.
    Unstable,
    /// Its page is merged: one of the mappings of a stable node.
    Stable(NodeId),
}

impl Place {
    /// The stable node of a merged page.
    pub(crate) fn node(self) -> Option<NodeId> {
        match self {
            Self::Stable(node) => Some(node),
            Self::Nowhere | Self::Unstable => None,
        }
    }
}

/// The word that all items have: from the top, the number of the virtual page; a detail, which
/// is the [`History`] of a page that is not merged, or the lowest bits of the index of a mapping;
/// a kind of place; and the number of a scan that has met the item there.
#[derive(Clone, Copy, Default)]
struct Head(u64);

impl Head {
    const SCAN: u64 = ScanNumber::MASK as u64;
    const KIND: u64 = 0xc0;
    const DETAIL: u64 = 0xfff << Self::DETAIL_SHIFT;
    const DETAIL_SHIFT: u32 = 8;
    const PAGE_SHIFT: u32 = 20;

    const NOWHERE: u64 = 0;
    const UNSTABLE: u64 = 0x40;
    const STABLE: u64 = 0x80;

    /// User space has addresses below 2^56, so nothing is cut off.
    fn of(page: usize) -> Self {
        Self((page as u64) << Self::PAGE_SHIFT)
    }

    fn page(self) -> usize {
        (self.0 >> Self::PAGE_SHIFT) as usize
    }

    fn kind(self) -> u64 {
        self.0 & Self::KIND
    }

    /// Sets the kind of place, where no scan has met the item so far.
    fn set_kind(&mut self, kind: u64) {
        self.0 = self.0 & !(Self::KIND | Self::SCAN) | kind;
    }

    fn scan(self) -> ScanNumber {
        ScanNumber((self.0 & Self::SCAN) as u8)
    }

    fn set_scan(&mut self, scan: ScanNumber) {
        self.0 = self.0 & !Self::SCAN | u64::from(scan.0);
    }

    fn detail(self) -> usize {
        ((self.0 & Self::DETAIL) >> Self::DETAIL_SHIFT) as usize
    }

    /// Keeps as much of `detail` as there is room for.
    fn set_detail(&mut self, detail: usize) {
        let detail = (detail as u64) << Self::DETAIL_SHIFT & Self::DETAIL;
        self.0 = self.0 & !Self::DETAIL | detail;
    }
}

/// The metadata of one page: 16 bytes. The data to find an equal of the page is in an
/// [`UnstableNode`] as long as the page is not merged.
#[derive(Default)]
pub(crate) struct RmapItem {
    head: Head,
    next: u32,
    /// The stable node of a merged page, the address space of any other.
    owner: u32,
}

impl Named for RmapItem {
    type Name = Item;
}

impl Stored for RmapItem {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Pages;
}

const _: () = assert!(size_of::<RmapItem>() == 16);

/// The bytes for a page that is not merged, as profits are reckoned.
pub(crate) const BYTES_PER_PAGE: usize = size_of::<RmapItem>() + size_of::<UnstableNode>();

impl RmapItem {
    /// Indices that differ by a multiple of this look the same to an item.
    const INDICES: usize = 1 << (Head::PAGE_SHIFT - Head::DETAIL_SHIFT);

    /// An item for the page at `address`.
    pub(crate) fn new(mm: SpaceId, address: usize) -> Self {
        Self {
            head: Head::of(address >> PAGE_SHIFT),
            next: 0,
            owner: mm.raw(),
        }
    }

    /// The virtual address of the page.
    pub(crate) fn address(&self) -> usize {
        self.head.page() << PAGE_SHIFT
    }

    /// The address space that the item belongs to, unless its page is merged: then its mapping
    /// knows.
    pub(crate) fn space(&self) -> Option<SpaceId> {
        match self.head.kind() {
            Head::STABLE => None,
            _ => Handle::from_raw(self.owner),
        }
    }

    /// Where the item stands.
    pub(crate) fn place(&self) -> Place {
        match (self.head.kind(), Handle::from_raw(self.owner)) {
            (Head::UNSTABLE, _) => Place::Unstable,
            (Head::STABLE, Some(node)) => Place::Stable(node),
            _ => Place::Nowhere,
        }
    }

    /// Notes that the item's page is merged, with mapping number `index` of `node`.
    pub(crate) fn note_merged(&mut self, node: NodeId, index: usize) {
        self.head.set_kind(Head::STABLE);
        self.owner = node.raw();
        self.set_index(index);
    }

    /// Notes that the item's page, which belongs to `mm`, is not merged any more. It is a new page.
    pub(crate) fn note_parted(&mut self, mm: SpaceId) {
        self.head.set_kind(Head::NOWHERE);
        self.set_history(History::default());
        self.owner = mm.raw();
    }

    /// The history of the page, which is not merged.
    pub(crate) fn history(&self) -> History {
        debug_assert!(self.head.kind() != Head::STABLE);
        History::from_detail(self.head.detail())
    }

    /// Gives the page, which is not merged, the history that it had before an attempt to merge it.
    pub(crate) fn set_history(&mut self, history: History) {
        debug_assert!(self.head.kind() != Head::STABLE);
        self.head.set_detail(history.detail());
    }

    fn change_history(&mut self, change: impl FnOnce(&mut History)) {
        let mut history = self.history();
        change(&mut history);
        self.set_history(history);
    }

    /// Whether an equal of the page, which is not merged, was found not long ago.
    pub(crate) fn has_equal(&self) -> bool {
        self.history().prospects.has_equal()
    }

    /// Notes that the page, which is not merged, has an equal.
    pub(crate) fn note_equal(&mut self) {
        self.change_history(|history| history.prospects.note_equal());
    }

    /// Notes that a search has found no equal of the page, which is not merged.
    pub(crate) fn note_no_equal(&mut self) {
        self.change_history(|history| history.prospects.note_no_equal());
    }

    /// Notes that the page, which is not merged, has another content than its equals had.
    pub(crate) fn forget_equals(&mut self) {
        self.change_history(|history| history.prospects = Prospects::default());
    }

    /// Whether the large folio of the page, which is not merged, was found to be worth a split.
    pub(crate) fn may_split(&self) -> bool {
        self.history().prospects.may_split()
    }

    /// Notes whether the large folio of the page, which is not merged, is worth a split.
    pub(crate) fn set_may_split(&mut self, may: bool) {
        self.change_history(|history| history.prospects.set_may_split(may));
    }

    /// Notes that the mapping of a merged page has another index.
    pub(crate) fn set_index(&mut self, index: usize) {
        self.head.set_detail(index);
    }

    /// Which of `count` mappings may be that of the item, whose page is merged.
    pub(crate) fn possible_indices(&self, count: usize) -> impl Iterator<Item = usize> {
        (self.head.detail()..count).step_by(Self::INDICES)
    }

    /// Notes that the item, whose page is not merged, is in the unstable tree.
    pub(crate) fn note_waiting(&mut self) {
        debug_assert!(self.head.kind() != Head::STABLE);
        self.head.set_kind(Head::UNSTABLE);
    }

    /// Notes that the item, whose page is not merged, is in no tree.
    pub(crate) fn note_left_tree(&mut self) {
        debug_assert!(self.head.kind() != Head::STABLE);
        self.head.set_kind(Head::NOWHERE);
    }

    /// Notes that a scan has met the page, and passed over it.
    pub(crate) fn note_met(&mut self, scan: ScanNumber) {
        self.head.set_scan(scan);
    }

    /// Whether a scan has met the page, and passed over it.
    pub(crate) fn was_met(&self, scan: ScanNumber) -> bool {
        self.head.scan() == scan
    }

    /// Notes that the unstable tree, if the item was in it, is gone.
    pub(crate) fn note_forgotten_tree(&mut self) {
        if self.place() == Place::Unstable {
            self.note_left_tree();
        }
    }

    /// Whether the page, which is not merged, has had every chance to merge, and scans pass over it
    /// now and then.
    pub(crate) fn is_old(&self) -> bool {
        self.history().age.is_old()
    }

    /// Whether this scan is to pass over the page; to be asked once a scan.
    pub(crate) fn is_to_be_skipped(&mut self) -> bool {
        if self.head.kind() == Head::STABLE {
            return false;
        }
        let mut history = self.history();
        let skip = history.age.advance();
        self.set_history(history);
        skip
    }
}

/// A tracked address space.
#[derive(Default)]
pub(crate) struct TrackedMm {
    slot: Option<Arc<MmSlot>>,
    first: u32,
}

impl Named for TrackedMm {
    type Name = Space;
}

impl Stored for TrackedMm {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Kmalloc;
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
    mm: SpaceId,
    /// The item before the place, or none at the beginning.
    previous: Option<ItemId>,
}

impl ListCursor {
    /// The beginning of the list of `mm`.
    pub(crate) fn front(mm: SpaceId) -> Self {
        Self { mm, previous: None }
    }

    /// The address space whose list this is.
    pub(crate) fn space(&self) -> SpaceId {
        self.mm
    }

    /// The item before the place.
    pub(crate) fn previous(&self) -> Option<ItemId> {
        self.previous
    }

    /// The item after the place.
    #[inline]
    pub(crate) fn next(&self, mms: &Pool<TrackedMm>, items: &Pool<RmapItem>) -> Option<ItemId> {
        Handle::from_raw(match self.previous {
            Some(previous) => items[previous].next,
            None => mms[self.mm].first,
        })
    }

    /// Moves behind `item`, which is the next.
    pub(crate) fn step_over(&mut self, item: ItemId) {
        self.previous = Some(item);
    }

    /// Links `item` in here, and moves behind it.
    pub(crate) fn insert(
        &mut self,
        mms: &mut Pool<TrackedMm>,
        items: &mut Pool<RmapItem>,
        item: ItemId,
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
        item: ItemId,
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
    use crate::testing::random::Random;
    use kernel::{
        page::PAGE_SIZE,
        prelude::*, //
    };

    struct Fixture {
        mms: Pool<TrackedMm>,
        items: Pool<RmapItem>,
        mm: SpaceId,
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

    fn owners() -> Result<(SpaceId, NodeId)> {
        let mm = Handle::from_raw(7).ok_or(EINVAL)?;
        let node = Handle::from_raw(9).ok_or(EINVAL)?;
        Ok((mm, node))
    }

    /// Sends `item` to every place; calls `check` with each.
    fn tour(item: &mut RmapItem, mut check: impl FnMut(&mut RmapItem, Place)) -> Result {
        let (mm, node) = owners()?;
        check(item, Place::Nowhere);
        item.note_waiting();
        check(item, Place::Unstable);
        item.note_left_tree();
        check(item, Place::Nowhere);
        item.note_merged(node, 255);
        check(item, Place::Stable(node));
        item.note_parted(mm);
        check(item, Place::Nowhere);
        Ok(())
    }

    #[test]
    fn an_item_keeps_what_it_is_told() -> Result {
        let (mm, _) = owners()?;
        for address in [0, PAGE_SIZE, 0x7fff_ffff_f000, 0x00ff_ffff_ffff_f000] {
            let mut item = RmapItem::new(mm, address);
            tour(&mut item, |item, place| {
                assert_eq!(item.place(), place);
                assert_eq!(item.address(), address);
                let is_merged = matches!(place, Place::Stable(_));
                assert_eq!(item.space(), (!is_merged).then_some(mm));
            })?;
        }
        Ok(())
    }

    #[test]
    fn an_item_knows_which_scan_has_met_it() -> Result {
        let mut scan = ScanNumber::default();
        for _ in 0..200 {
            let mut item = RmapItem::default();
            let before = scan;
            scan = scan.next();
            tour(&mut item, |item, place| {
                assert!(!item.was_met(scan));
                item.note_met(scan);
                assert!(item.was_met(scan) && !item.was_met(before));
                assert_eq!(item.place(), place);
            })?;
            assert!(scan != ScanNumber::default());
        }
        Ok(())
    }

    #[test]
    fn the_mapping_of_an_item_is_at_one_of_a_few_indices() -> Result {
        let (_, node) = owners()?;
        let mut item = RmapItem::default();
        for index in [0, 1, 4095, 4096, 10_000, 1 << 20] {
            item.note_merged(node, 3);
            item.set_index(index);
            assert_eq!(item.possible_indices(index).last(), index.checked_sub(4096));
            assert_eq!(item.possible_indices(index + 1).last(), Some(index));
            assert_eq!(item.possible_indices(8192).count(), 2);
        }
        Ok(())
    }

    #[test]
    fn an_equal_is_forgotten_after_some_searches_in_vain() -> Result {
        let (mm, node) = owners()?;
        let mut item = RmapItem::new(mm, PAGE_SIZE);
        item.set_may_split(true);
        for _ in 0..40 {
            assert!(!item.has_equal() && item.may_split());
            item.note_equal();
            for _ in 0..Prospects::PATIENCE {
                assert!(item.has_equal());
                item.is_to_be_skipped();
                item.note_no_equal();
            }
            item.note_no_equal();
            assert!(item.is_old());
        }
        item.note_equal();
        let history = item.history();
        item.note_merged(node, 4095);
        item.note_parted(mm);
        assert!(!item.has_equal() && !item.may_split() && !item.is_old());
        item.set_history(history);
        assert!(item.has_equal() && item.may_split() && item.is_old());
        item.forget_equals();
        assert!(!item.has_equal() && !item.may_split() && item.is_old());
        assert_eq!(item.address(), PAGE_SIZE);
        Ok(())
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
    fn a_merged_page_is_never_skipped_and_starts_anew() -> Result {
        let (mm, node) = owners()?;
        let mut item = RmapItem::default();
        for _ in 0..10 {
            item.is_to_be_skipped();
        }
        item.note_merged(node, 0);
        for _ in 0..20 {
            assert!(!item.is_to_be_skipped());
        }
        item.note_parted(mm);
        for _ in 0..4 {
            assert!(!item.is_to_be_skipped());
        }
        assert!(item.is_to_be_skipped());
        Ok(())
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
