// SPDX-License-Identifier: GPL-2.0

//! The work of operations at several sizes, counted: nodes touched, allocations and their orders.
//!
//! Nothing here knows about time, so the results are the same on every machine.

use crate::{
    checksum::checksum,
    containers::{
        handle::Handle,
        handle_table::{per_page, Stored, Table},
        pool::Pool,
        rbtree::{Descent, Verdict},
        sharded_tree::{Keyed, ShardedTree},
    },
    counted::Counted,
    kernel_api::kthread,
    mm::ksm_page::ids::ItemId,
    records::unstable_node::UnstableNode,
};
use kernel::{prelude::*, usage};

/// A sharded tree and its nodes, which are numbered from 1.
struct Wood {
    nodes: Counted<Table<UnstableNode>>,
    trees: ShardedTree<UnstableNode>,
}

/// Nodes that operations of one kind have touched.
#[derive(Default)]
struct Touched {
    operations: usize,
    nodes: usize,
    most: usize,
}

impl Touched {
    fn add(&mut self, nodes: usize) {
        self.operations += 1;
        self.nodes += nodes;
        self.most = self.most.max(nodes);
    }

    fn mean(&self) -> f64 {
        self.nodes as f64 / self.operations as f64
    }
}

fn node(number: u32) -> ItemId {
    Handle::from_raw(number).expect("not zero")
}

impl Wood {
    fn new() -> Self {
        Self {
            nodes: Counted::new(Table::new()),
            trees: ShardedTree::new().expect("memory"),
        }
    }

    /// Inserts a node of that checksum; returns how many nodes it touched.
    fn insert(&mut self, number: u32, checksum: u32) -> usize {
        let new = UnstableNode::new(checksum);
        let put = self.nodes.values.put(node(number), new, GFP_KERNEL);
        assert!(put.is_ok());
        self.plant(number)
    }

    /// Inserts a node that is there already.
    fn plant(&mut self, number: u32) -> usize {
        let checksum = self.nodes[node(number)].checksum();
        self.nodes.take();
        let place = self
            .trees
            .descend(&self.nodes, checksum, |_, _| Verdict::After);
        match place {
            Descent::Vacant(at) => self.trees.insert(&mut self.nodes, at, node(number)),
            Descent::Found(_) | Descent::Stopped(_) => unreachable!("all go further"),
        }
        self.nodes.take()
    }

    fn remove(&mut self, number: u32) -> usize {
        self.nodes.take();
        self.trees.remove(&mut self.nodes, node(number));
        let touched = self.nodes.take();
        self.nodes.values.remove(node(number));
        touched
    }

    /// Nodes that look-ups of nodes that are there touch.
    fn look_up(&self, numbers: impl Iterator<Item = u32>) -> Touched {
        let mut touched = Touched::default();
        for number in numbers {
            let found = self.trees.descend(&self.nodes, checksum(number), |at, _| {
                match at.raw() == number {
                    true => Verdict::Match,
                    false => Verdict::After,
                }
            });
            assert!(matches!(found, Descent::Found(_)));
            touched.add(self.nodes.take());
        }
        touched
    }

    fn visit_all(&mut self) {
        let mut visited = 0;
        self.nodes.values.for_each_mut(|_| visited += 1);
        assert_eq!(visited, self.nodes.values.len());
    }

    /// Looks for the last node when there is no other.
    fn pass_over_vacant(&mut self) {
        for number in 1..LARGE - 1 {
            self.nodes.values.remove(node(number));
        }
        let next = self.nodes.values.next_after(None);
        assert_eq!(next, Some(node(LARGE - 1)));
    }

    fn grow(&mut self, numbers: impl Iterator<Item = u32>) -> Touched {
        let mut touched = Touched::default();
        for number in numbers {
            touched.add(self.insert(number, checksum(number)));
        }
        touched
    }

    fn shrink(&mut self, numbers: impl Iterator<Item = u32>) -> Touched {
        let mut touched = Touched::default();
        for number in numbers {
            touched.add(self.remove(number));
        }
        touched
    }
}

const SMALL: u32 = 1 << 12;
const LARGE: u32 = 1 << 18;

/// How much more an operation may do at a larger size.
const FACTOR: f64 = 1.5;

#[test]
fn a_look_up_touches_as_few_nodes_in_a_forest_that_has_grown() {
    let mut wood = Wood::new();
    wood.grow(1..SMALL);
    let small = wood.look_up(1..SMALL).mean();
    wood.grow(SMALL..LARGE);
    let large = wood.look_up((1..LARGE).step_by(37)).mean();
    assert!(
        large <= FACTOR * small,
        "a look-up meets {large:.1} nodes of {LARGE}, {small:.1} of {SMALL}"
    );
}

#[test]
fn no_change_touches_many_nodes() {
    let mut wood = Wood::new();
    for (change, touched) in [
        ("an insertion", wood.grow(1..LARGE)),
        ("a removal", wood.shrink(1..LARGE)),
    ] {
        let (mean, most) = (touched.mean(), touched.most);
        assert!(
            mean < 7.0 && most < 60,
            "{change} touches {mean:.1} nodes, up to {most}, in a sharded tree of up to {LARGE}"
        );
    }
}

#[test]
fn a_tree_of_many_equal_checksums_is_split_and_joined_at_once() {
    // Pages that change after they were inserted can share a checksum and no content.
    let mut wood = Wood::new();
    for number in 1..LARGE {
        let shared = number % 2 == 0;
        let touched = wood.insert(number, if shared { 77 } else { checksum(number) });
        assert!(touched < 300, "an insertion touches {touched} nodes");
    }
    let shrunk = wood.shrink(1..LARGE);
    assert!(shrunk.most < 300, "a removal touches {} nodes", shrunk.most);
}

#[test]
fn a_forest_that_cannot_grow_takes_nodes_and_grows_later() {
    let mut wood = Wood::new();
    for number in 1..SMALL {
        let new = UnstableNode::new(checksum(number));
        assert!(wood.nodes.values.put(node(number), new, GFP_KERNEL).is_ok());
    }
    usage::without_memory(|| {
        for number in 1..SMALL {
            wood.plant(number);
        }
    });
    let small = wood.look_up(1..SMALL).mean();
    wood.grow(SMALL..2 * SMALL);
    let large = wood.look_up(1..2 * SMALL).mean();
    assert!(
        large < small,
        "a look-up meets {large:.1} nodes after growth, {small:.1} before"
    );
}

#[test]
fn all_pages_go_back() {
    let before = usage::pages();
    let mut wood = Wood::new();
    let bare = usage::pages();
    wood.grow(1..LARGE);
    assert!(usage::pages() > bare + (LARGE / 1024) as isize);
    wood.trees.forget();
    wood.nodes.values.clear();
    assert_eq!(usage::pages(), bare);
    wood.grow(1..LARGE);
    wood.shrink(1..LARGE);
    wood.nodes.values.clear();
    assert_eq!(usage::pages(), bare);
    drop(wood);
    assert_eq!(usage::pages(), before);
}

#[test]
fn what_goes_over_all_offers_the_cpu() {
    let mut wood = Wood::new();
    wood.grow(1..LARGE);
    let offers = || kthread::offers() as u32;
    let chunks = LARGE / 256;
    for (what, work) in [
        ("each", Wood::visit_all as fn(&mut Wood)),
        ("next", Wood::pass_over_vacant),
        ("forget", |wood| wood.trees.forget()),
        ("clear", |wood| wood.nodes.values.clear()),
    ] {
        let before = offers();
        work(&mut wood);
        let (offered, wanted) = (offers() - before, wanted(what, chunks));
        assert!(
            offered >= wanted,
            "{what}: {offered} offers, {wanted} wanted"
        );
    }
}

/// How often what goes over so many chunks is to offer the CPU.
fn wanted(what: &str, chunks: u32) -> u32 {
    match what {
        // A page of roots is for 1,024 nodes, which lie in four chunks.
        "forget" => chunks / 4 - 1,
        // Chunks without a value cost next to nothing.
        "next" => chunks / 1024,
        _ => chunks,
    }
}

#[test]
fn growth_neither_needs_nor_copies_much_memory_at_once() {
    usage::reset();
    let mut pool = Pool::new();
    for number in 0..3 << 23 {
        assert!(pool.insert(Small(number as u8), GFP_KERNEL).is_ok());
    }
    let of_pool = usage::largest_vector() >> 10;
    Wood::new().grow(1..1 << 20);
    let (order, of_all) = (usage::highest_order(), usage::largest_vector() >> 10);
    assert!(
        order <= 3 && of_all <= 512,
        "a pool of 2^24 values had {of_pool} KiB copied at once, a pool or a sharded tree {of_all}; \
         an allocation had order {order}"
    );
}

/// A value that many fit in memory of.
#[derive(Default)]
struct Small(u8);

impl crate::containers::handle::Named for Small {
    type Name = Self;
}

impl Stored for Small {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = kernel::alloc::allocator::Kmalloc;
}
