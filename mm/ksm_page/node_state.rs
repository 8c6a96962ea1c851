// SPDX-License-Identifier: GPL-2.0

//! The part of a stable node that no search needs.

#![deny(unsafe_code)]

use crate::{
    containers::handle::{
        raw_or_zero,
        Handle, //
    },
    mm::ksm_page::ids::{
        Node,
        PartitionId, //
    },
    stable_tree::{
        Around,
        Siblings, //
    }, //
};
use kernel::{
    bindings,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};

/// How many mappings a stable node has, its partition, and its place in its chain.
///
/// It is stored in the anchor, which has 12 bytes to spare, and protected by the scan mutex.
pub(crate) struct NodeState {
    /// From the lowest bit: how many mappings there are, which the list behind the folio's lock says;
    /// [`NodeState::ROOM`]; the partition.
    mappings_and_partition: Atomic<u32>,
    /// The neighbours in the node's chain, or zeros; the first of a chain has [`NodeState::FIRST`] in the
    /// former.
    siblings: [Atomic<u32>; 2],
}

impl NodeState {
    /// So many mappings and more are not told apart.
    const MOST_MAPPINGS: u32 = Self::ROOM - 1;
    /// Whether one more mapping may join.
    const ROOM: u32 = 1 << 20;
    const PARTITION_SHIFT: u32 = 21;

    /// No handle has this bit.
    const FIRST: u32 = 1 << 31;

    /// The state of a node without mappings in the tree of `partition`.
    pub(crate) fn new(partition: PartitionId) -> Self {
        let state = Self {
            mappings_and_partition: Atomic::new(0),
            siblings: [Atomic::new(0), Atomic::new(0)],
        };
        state.set_partition(partition);
        state
    }

    /// The partition in whose tree the node is.
    pub(crate) fn partition(&self) -> PartitionId {
        PartitionId::from_raw(self.mappings_and_partition.load(Relaxed) >> Self::PARTITION_SHIFT)
    }

    pub(crate) fn set_partition(&self, partition: PartitionId) {
        let mask = Self::MOST_MAPPINGS | Self::ROOM;
        let rest = self.mappings_and_partition.load(Relaxed) & mask;
        self.mappings_and_partition
            .store(partition.raw() << Self::PARTITION_SHIFT | rest, Relaxed);
    }

    /// Notes how many mappings there are, of `max_page_sharing` that there may be; returns whether
    /// that changes whether the node has room.
    ///
    /// A page that has no mapping left will soon be freed, and is not worth joining.
    #[must_use]
    pub(crate) fn set_mappings(&self, count: usize, max_page_sharing: usize) -> bool {
        let most = Self::MOST_MAPPINGS as usize;
        let room = (1..max_page_sharing.min(most)).contains(&count);
        let old = self.mappings_and_partition.load(Relaxed);
        let mut new = old & !(Self::MOST_MAPPINGS | Self::ROOM) | count.min(most) as u32;
        if room {
            new |= Self::ROOM;
        }
        self.mappings_and_partition.store(new, Relaxed);
        (old ^ new) & Self::ROOM != 0
    }

    pub(crate) fn has_room(&self) -> bool {
        self.mappings_and_partition.load(Relaxed) & Self::ROOM != 0
    }

    pub(crate) fn siblings(&self) -> Siblings<Node> {
        let [prev, next] = self
            .siblings
            .each_ref()
            .map(|sibling| sibling.load(Relaxed));
        let ends = [
            Handle::from_raw(prev & !Self::FIRST),
            Handle::from_raw(next),
        ];
        Siblings {
            around: match ends {
                [Some(prev), Some(next)] => Some(Around { prev, next }),
                _ => None,
            },
            is_first: prev & Self::FIRST != 0,
        }
    }

    pub(crate) fn set_siblings(&self, siblings: Siblings<Node>) {
        let first = match siblings.is_first {
            true => Self::FIRST,
            false => 0,
        };
        let around = siblings.around;
        let [prev, next] = &self.siblings;
        prev.store(
            raw_or_zero(around.map(|around| around.prev)) | first,
            Relaxed,
        );
        next.store(raw_or_zero(around.map(|around| around.next)), Relaxed);
    }
}

// NUMA nodes are numbered below 2^10 on all architectures.
const _: () = assert!(bindings::MAX_NUMNODES <= 1 << (u32::BITS - NodeState::PARTITION_SHIFT));

#[kernel::macros::kunit_tests(ksm_rs_node_state)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    #[test]
    fn numbers_are_kept_apart() {
        let state = NodeState::new(PartitionId::from_raw(1023));
        assert!(!state.has_room());
        let mut had_room = false;
        for count in [0, 1, 2, 255, 256, 1 << 19, (1 << 20) - 2] {
            for (limit, room) in [(count + 1, count > 0), (count, false)] {
                assert_eq!(state.set_mappings(count, limit), room != had_room);
                had_room = room;
                for partition in [0, 1023, 5] {
                    state.set_partition(PartitionId::from_raw(partition));
                    assert_eq!(state.partition(), PartitionId::from_raw(partition));
                    assert_eq!(state.has_room(), room);
                }
            }
        }
    }

    #[test]
    fn who_has_too_many_mappings_to_count_has_no_room() {
        let state = NodeState::new(PartitionId::default());
        for count in [(1 << 20) - 1, 1 << 20, 1 << 30] {
            assert!(!state.set_mappings(count, usize::MAX));
            assert!(!state.has_room());
            assert_eq!(state.partition(), PartitionId::default());
        }
    }

    #[test]
    fn a_node_knows_its_place_in_its_chain() -> Result {
        let state = NodeState::new(PartitionId::default());
        let handle = |raw| Handle::from_raw(raw).ok_or(EINVAL);
        assert!(state.siblings().around.is_none() && !state.siblings().is_first);
        for (prev, next) in [(7, 7), (1, (1 << 31) - 1), ((1 << 31) - 1, 1)] {
            for is_first in [true, false] {
                let (prev, next) = (handle(prev)?, handle(next)?);
                let around = Some(Around { prev, next });
                state.set_siblings(Siblings { around, is_first });
                let kept = state.siblings();
                assert_eq!(kept.is_first, is_first);
                assert!(kept
                    .around
                    .is_some_and(|around| around.prev == prev && around.next == next));
            }
        }
        state.set_siblings(Siblings::default());
        assert!(state.siblings().around.is_none() && !state.siblings().is_first);
        Ok(())
    }
}
