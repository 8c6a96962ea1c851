// SPDX-License-Identifier: GPL-2.0

//! What the kernel uses memory for, by slab cache and by caller of vmalloc: a hint at who has
//! grown, where [`MemoryUse`](crate::memory_use::MemoryUse) says that somebody has.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{procfs, PAGE_SIZE};

/// KiB by user.
#[derive(Default, Clone)]
pub struct MemoryDetail(BTreeMap<String, i64>);

impl MemoryDetail {
    /// Now; what the kernel does not tell is left out.
    pub fn now() -> Result<Self> {
        let mut detail = Self::default();
        detail.add_lines("/proc/slabinfo", slab)?;
        detail.add_lines("/proc/vmallocinfo", vmalloc)?;
        Ok(detail)
    }

    /// What one of them uses.
    pub fn kib(&self, user: &str) -> i64 {
        self.0.get(user).copied().unwrap_or(0)
    }

    /// Those who have grown from now to `later`, in KiB, the largest growth first.
    pub fn growth(&self, later: &Self) -> Vec<(String, i64)> {
        let mut growth: Vec<_> = later
            .0
            .iter()
            .map(|(user, kib)| (user.clone(), kib - self.kib(user)))
            .filter(|(_, kib)| *kib > 0)
            .collect();
        growth.sort_by_key(|(_, kib)| -kib);
        growth
    }

    fn add_lines(&mut self, file: &str, parse: fn(&str) -> Option<(String, i64)>) -> Result<()> {
        let text = procfs::read_if_present(file)?;
        for (user, kib) in text.lines().filter_map(parse) {
            *self.0.entry(user).or_default() += kib;
        }
        Ok(())
    }
}

/// A cache and its size: `name active objects size per_slab pages_per_slab : … : slabdata _ slabs _`.
fn slab(line: &str) -> Option<(String, i64)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let pages: i64 = words.get(5)?.parse().ok()?;
    let slabs: i64 = words.get(14)?.parse().ok()?;
    Some((
        format!("slab {}", words[0]),
        pages * slabs * (PAGE_SIZE / 1024) as i64,
    ))
}

/// A caller and its pages: `from-to bytes caller+offset/size … pages=4 …`.
fn vmalloc(line: &str) -> Option<(String, i64)> {
    let mut words = line.split_whitespace();
    let caller = words.nth(2)?.split('+').next()?;
    let pages: i64 = words
        .find_map(|word| word.strip_prefix("pages="))?
        .parse()
        .ok()?;
    Some((
        format!("vmalloc {caller}"),
        pages * (PAGE_SIZE / 1024) as i64,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let line = "anon_vma 98 120 208 39 2 : tunables 0 0 0 : slabdata 4 5 0";
        assert_eq!(slab(line), Some(("slab anon_vma".into(), 40)));
        assert_eq!(slab("slabinfo - version: 2.1"), None);
        let line =
            "0xffffc90000000000-0xffffc90000005000   20480 dup_task+0x61/0x900 pages=4 vmalloc";
        assert_eq!(vmalloc(line), Some(("vmalloc dup_task".into(), 16)));
        let line = "0xffffc90000000000-0xffffc90000005000   20480 map_it+0x61/0x900 phys=0xfed00000 ioremap";
        assert_eq!(vmalloc(line), None);
    }

    #[test]
    fn the_largest_growth_comes_first() {
        let then = MemoryDetail([("a".into(), 4), ("b".into(), 8), ("c".into(), 1)].into());
        let now = MemoryDetail([("a".into(), 8), ("b".into(), 2), ("d".into(), 12)].into());
        let growth = then.growth(&now);
        assert_eq!(growth, [("d".to_owned(), 12), ("a".to_owned(), 4)]);
    }
}
