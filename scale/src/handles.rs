// SPDX-License-Identifier: GPL-2.0

//! A host that has more pages than there are handles.

use crate::{
    clock::nanoseconds,
    containers::{
        handle::Named,
        handle_table::{per_page, Stored},
        pool::{Pool, PoolError},
    },
    report::{Access, Row},
};
use anyhow::{ensure, Result};
use kernel::{alloc::allocator::Kmalloc, prelude::GFP_KERNEL};

/// A value as small as can be.
#[derive(Default)]
struct Byte(u8);

impl Named for Byte {
    type Name = Self;
}

impl Stored for Byte {
    type Chunk = [Self; per_page::<Self>()];
    type Memory = Kmalloc;
}

/// Uses all handles, and one more.
pub(crate) fn measure(sample: usize) -> Result<Vec<Row>> {
    let mut pool = Pool::new();
    let mut last = None;
    let mut fill = |count: usize| {
        for number in 0..count {
            last = pool.insert(Byte(number as u8), GFP_KERNEL).ok();
        }
    };
    fill(Byte::HANDLES - sample);
    let time = nanoseconds(sample, |part| fill(part.len()));
    fill(sample % crate::clock::PARTS);
    ensure!(pool.len() == Byte::HANDLES, "{} handles", pool.len());
    let refused = pool.insert(Byte(0), GFP_KERNEL).err();
    ensure!(refused == Some(PoolError::NoHandle), "{refused:?}");
    let last = last.expect("taken");
    ensure!(last.raw() == (1 << 31) - 1, "the last handle is {last:?}");
    pool.remove(last);
    ensure!(
        pool.insert(Byte(0), GFP_KERNEL) == Ok(last),
        "no handle again"
    );
    Ok(vec![Row::new(
        "value of a byte: made",
        Access::Sequential,
        time,
    )])
}
