// SPDX-License-Identifier: GPL-2.0

//! What is drawn, and under which name.

/// One measure of one workload.
pub struct Row {
    pub label: &'static str,
    pub workload: &'static str,
    pub measure: &'static str,
}

const fn row(label: &'static str, workload: &'static str, measure: &'static str) -> Row {
    Row {
        label,
        workload,
        measure,
    }
}

/// From top to bottom.
pub const ROWS: &[Row] = &[
    row("first scan", "unique", "first_scan_ns_per_page"),
    row("unique pages", "unique", "scan_ns_per_page"),
    row("differ at byte 0", "differ-0", "scan_ns_per_page"),
    row("differ at byte 64", "differ-64", "scan_ns_per_page"),
    row("differ at byte 2048", "differ-2048", "scan_ns_per_page"),
    row("differ at byte 4088", "differ-4088", "scan_ns_per_page"),
    row("half volatile", "volatile", "scan_ns_per_page"),
    row("vmas of 4 pages", "vmas", "scan_ns_per_page"),
    row("processes of 16 pages", "processes", "scan_ns_per_page"),
    row("1 page in 32 GiB", "sparse", "scan_ns"),
    row("merging pairs", "pairs", "merge_ns_per_page"),
    row("merging, half are pairs", "half-dup", "merge_ns_per_page"),
    row("merging, all the same", "same", "merge_ns_per_page"),
    row("merging zeros", "zero", "merge_ns_per_page"),
    row("all merged, pairs", "pairs", "steady_ns_per_page"),
    row("all merged, the same", "same", "steady_ns_per_page"),
    row("defaults: unique", "default-unique", "steady_ns_per_page"),
    row(
        "defaults: merging pairs",
        "default-pairs",
        "merge_ns_per_page",
    ),
    row(
        "defaults: all merged",
        "default-pairs",
        "steady_ns_per_page",
    ),
    row("  first page changes", "default-pairs", "first_ns_per_page"),
    row(
        "  1 in 1,000 changes",
        "default-pairs",
        "thousandth_ns_per_page",
    ),
    row(
        "defaults: a process ends",
        "default-ended",
        "ended_ns_per_page",
    ),
    row("defaults: mixed", "mixed", "scan_ns_per_page"),
    row("unmerging, run=2", "unmerge", "unmerge_ns_per_page"),
    row("unmerging, madvise", "unmerge", "unmergeable_ns_per_page"),
    row("exit", "exit", "exit_ns_per_page"),
    row("fork", "fork", "fork_ns_per_page"),
    row("write fault", "cow", "fault_ns"),
    row("reclaim, 2 mappings", "rmap-2", "reclaim_ns_per_mapping"),
    row("reclaim, 256", "rmap-256", "reclaim_ns_per_mapping"),
    row("reverse walk, 4096", "rmap-4096", "walk_ns_per_mapping"),
    row("madvise call", "madvise", "mergeable_ns"),
];
