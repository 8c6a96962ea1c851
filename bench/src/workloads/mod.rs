// SPDX-License-Identifier: GPL-2.0

//! All workloads.

mod changes;
mod defaults;
mod holds;
mod huge;
mod lifetime;
mod locks;
mod madvise;
mod mappings;
mod merged;
mod mixed;
mod only_zeros;
mod others;
mod refaults;
mod reference;
mod rmap;
mod tenants;
mod unmerged;

use crate::workload::Workload;

/// In the order in which tables show them.
pub const ALL: &[Workload] = &[
    Workload::new("unique", "random pages", unmerged::unique),
    Workload::new("differ-0", "equal but for the first 8 bytes", |plan| {
        unmerged::differing(plan, 0)
    }),
    Workload::new("differ-64", "equal but for 8 bytes at 64", |plan| {
        unmerged::differing(plan, 64)
    }),
    Workload::new("differ-2048", "equal but for 8 bytes at 2048", |plan| {
        unmerged::differing(plan, 2048)
    }),
    Workload::new("differ-4088", "equal but for the last 8 bytes", |plan| {
        unmerged::differing(plan, 4088)
    }),
    Workload::new(
        "volatile",
        "random pages, half of which change between two scans",
        unmerged::volatile,
    ),
    Workload::new("pairs", "each page has one equal", merged::pairs),
    Workload::new(
        "half-dup",
        "every second page has one equal",
        merged::half_duplicates,
    ),
    Workload::new("same", "all pages are equal", merged::same),
    Workload::new(
        "zero",
        "pages of zeros, with use_zero_pages=1",
        merged::zero,
    ),
    Workload::new(
        "only-zeros",
        "random pages, with only_zero_pages=1 (C: use_zero_pages=1)",
        only_zeros::only_zeros,
    ),
    Workload::new(
        "sparse",
        "one page in 32 GiB of address space",
        mappings::sparse,
    ),
    Workload::new("vmas", "vmas of 4 random pages each", mappings::vmas),
    Workload::new(
        "processes",
        "2 processes for each MiB, with 16 random pages each",
        mappings::processes,
    ),
    Workload::new(
        "unmerge",
        "unmerging pairs, by run=2 and by madvise",
        lifetime::unmerge,
    ),
    Workload::new(
        "exit",
        "end of a process that shares all with another",
        lifetime::exit,
    ),
    Workload::new(
        "fork",
        "fork of a process that shares all with another",
        lifetime::fork,
    ),
    Workload::new("cow", "a write to each merged page", lifetime::cow),
    Workload::new(
        "rmap-2",
        "reclaim of pages with 2 mappings each",
        rmap::sharers_2,
    ),
    Workload::new(
        "rmap-256",
        "reclaim of pages with 256 mappings each",
        rmap::sharers_256,
    ),
    Workload::new(
        "rmap-4096",
        "reclaim looking at pages with 4096 mappings each",
        rmap::sharers_4096,
    ),
    Workload::new("madvise", "advising a populated range", madvise::madvise),
    Workload::new(
        "locks",
        "how long locks are held while half of the pages are merged in pairs",
        locks::locks,
    ),
    Workload::new(
        "holds",
        "how long ksmd holds each kind of lock where there is most to be done",
        holds::holds,
    ),
    Workload::new(
        "default-unique",
        "random pages, at the default settings",
        defaults::unique,
    ),
    Workload::new(
        "default-pairs",
        "each page has one equal, at the default settings",
        defaults::pairs,
    ),
    Workload::new(
        "default-same",
        "all pages are equal, at the default settings",
        defaults::same,
    ),
    Workload::new(
        "default-zero",
        "pages of zeros, at the default settings but for use_zero_pages=1",
        defaults::zero,
    ),
    Workload::new(
        "default-ended",
        "a process of half of all memory ends, at the default settings",
        defaults::ended,
    ),
    Workload::new(
        "mixed",
        "share of all duplicates that is merged while memory changes, at the default settings",
        mixed::mixed,
    ),
    Workload::new(
        "tenants",
        "64 equal guests, and 1,024 that have each page twice, in 1 to 1,024 domains",
        tenants::tenants,
    ),
    Workload::new(
        "refaults",
        "random touches of more memory than a group may have",
        refaults::refaults,
    ),
    Workload::new(
        "changes",
        "changes of mappings whose pages the scan knows",
        changes::changes,
    ),
    Workload::new(
        "gone",
        "what the records know too much while memory goes away",
        changes::gone,
    ),
    Workload::new(
        "merge-any",
        "fork, exec and mmap of a process that offers all of its memory",
        others::merge_any,
    ),
    Workload::new(
        "compiler",
        "a compiler all of whose memory is offered",
        others::compiler,
    ),
    Workload::new(
        "reference",
        "reading and hashing the same memory, without KSM",
        reference::reference,
    ),
    Workload::new("huge-unique", "unique, in huge pages", |plan| {
        unmerged::unique(&plan.in_huge_pages())
    }),
    Workload::new("huge-differ-4088", "differ-4088, in huge pages", |plan| {
        unmerged::differing(&plan.in_huge_pages(), 4088)
    }),
    Workload::new("huge-pairs", "pairs, in huge pages", |plan| {
        merged::pairs(&plan.in_huge_pages())
    }),
    Workload::new("huge-zero", "zero, in huge pages", huge::zero),
    Workload::new(
        "huge-curve",
        "huge pages that stay whole, and what is saved, by huge_page_min_equal",
        huge::curve,
    ),
];
