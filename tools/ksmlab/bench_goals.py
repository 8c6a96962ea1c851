# SPDX-License-Identifier: GPL-2.0
"""What ksm_rs is meant to reach."""

import math
from dataclasses import dataclass
from enum import StrEnum

from .bench_plan import BASE_MIB, DEFAULTS
from .bench_results import Result

# How many times cheaper than C each measure ought to be; any other: not dearer.
RATIOS = {
    ("unique", "scan_ns_per_page"): 8.0,
    ("unique", "first_scan_ns_per_page"): 1.5,
    ("differ-4088", "scan_ns_per_page"): 20.0,
    ("pairs", "merge_ns_per_page"): 2.0,
    ("half-dup", "merge_ns_per_page"): 2.0,
    ("same", "merge_ns_per_page"): 2.0,
    ("pairs", "steady_ns_per_page"): 3.0,
    ("same", "steady_ns_per_page"): 3.0,
    ("unmerge", "unmerge_ns_per_page"): 2.0,
    ("unmerge", "unmergeable_ns_per_page"): 2.0,
    ("sparse", "scan_ns"): 2.0,
    ("processes", "scan_ns_per_page"): 2.0,
    ("only-zeros", "first_scan_ns_per_page"): 4.0,
    ("only-zeros", "scan_ns_per_page"): 20.0,
}
OTHERWISE = 1.0

# Of the cost at another commit, ours may be so much: the ratio that says that nothing became worse.
NOT_WORSE = 0.97

# Without a difference half of all rounds are below 1. That most of them are counts if chance alone
# would bring it about this seldom.
CHANCE = 0.05

# Says whether the clock can be trusted, nothing about KSM.
CHECKS = ("mean_ns_per_page", "schedstat_ns_per_page")

# For metadata there is a limit.
MEMORY = ("metadata_bytes_per_page", "memory_kib")

# The cost of a merge in other units, and how soon pages and processes are forgotten.
NO_COST = (
    "merge_wall_ms",
    "saved_pages_per_cpu_s",
    "ended_percent_of_scan",
    "stale_items_percent",
    "gone_items_percent",
    "gone_unshared_percent",
)

# The end of the names of the longest of many holds, which is that of an interruption of one of them.
HOLD = "_us"

# Bytes that may be kept for each page that is scanned.
METADATA = 64.0
METADATA_WORKLOADS = ("unique", "pairs", "half-dup", "same")

# A page at the largest size against a page at the smallest one.
GROWTH = 1.5
SMALLEST_MIB, LARGEST_MIB = 64, 8192

# At the default settings: a page at the largest size that was run against a page at the usual one.
DEFAULTS_GROWTH = 1.2
PER_PAGE = "_ns_per_page"

# A scan of unchanged pages against a checksum of the same memory, and no more.
PASSES = 2.0
CHECKSUM_PASS = "xxh3_ns_per_page"

SCAN = "scan_ns_per_page"

Results = dict[tuple[str, int], Result]


def ratio_wanted(result: Result, measure: str) -> float | None:
    """The ratio to be reached, if the measure has one."""
    if result.workload == "reference" or measure in CHECKS:
        return None
    return NOT_WORSE if result.base else goal(result, measure)


def goal(result: Result, measure: str) -> float | None:
    """How many times cheaper than C: goals are about time, at native speed."""
    if result.lane != "um" or measure in (*MEMORY, *NO_COST) or measure.endswith(HOLD):
        return None
    return RATIOS.get((result.workload, measure), OTHERWISE)


class Verdict(StrEnum):
    MET = "yes"
    # Below what is wanted, but as often above 1 as one would expect of what costs the same.
    LEVEL = "level"
    MISSED = "NO"


def verdict(result: Result, measure: str) -> Verdict | None:
    """Whether the ratio is reached, if the measure has one."""
    ratio, wanted = result.ratio(measure), ratio_wanted(result, measure)
    if not (ratio and wanted):
        return None
    if ratio.median >= wanted:
        return Verdict.MET
    if wanted > OTHERWISE or is_dearer(result, measure):
        return Verdict.MISSED
    return Verdict.LEVEL


def is_dearer(result: Result, measure: str) -> bool:
    """Whether more rounds are below 1 than chance explains: a sign test."""
    single = result.single(measure)
    below = sum(ratio < 1 for ratio in single)
    as_many = sum(math.comb(len(single), count) for count in range(below, len(single) + 1))
    return as_many / 2 ** len(single) <= CHANCE


@dataclass
class Limit:
    """A value that ought to be small; that of C stands beside it."""

    what: str
    c: float
    rs: float
    most: float

    @property
    def verdict(self) -> Verdict:
        return Verdict.MET if self.rs <= self.most else Verdict.MISSED


def limits(results: Results) -> list[Limit]:
    """Those for which there are results: none if it was not C that ours was compared with."""
    if any(one.base for one in results.values()):
        return []
    return [*metadata(results), *growth(results), *default_growth(results), *passes(results)]


def metadata(results: Results) -> list[Limit]:
    measure = "metadata_bytes_per_page"
    found = [results.get((workload, BASE_MIB)) for workload in METADATA_WORKLOADS]
    return [
        Limit(
            f"metadata of {one.workload}, bytes a page",
            *one.medians(measure),
            METADATA,
        )
        for one in found
        if one and measure in one.measures
    ]


def growth(results: Results) -> list[Limit]:
    small, large = (results.get(("unique", mib)) for mib in (SMALLEST_MIB, LARGEST_MIB))
    if not (small and large):
        return []
    c, rs = (b / a for a, b in zip(small.medians(SCAN), large.medians(SCAN)))
    return [Limit(f"a unique page at {LARGEST_MIB} MiB / at {SMALLEST_MIB} MiB", c, rs, GROWTH)]


def default_growth(results: Results) -> list[Limit]:
    """Each workload at the default settings, and each of its measures."""
    found = []
    for workload in DEFAULTS:
        largest = max((mib for name, mib in results if name == workload), default=BASE_MIB)
        small, large = (results.get((workload, mib)) for mib in (BASE_MIB, largest))
        if small and large and largest > BASE_MIB:
            found += [
                grown(small, large, measure)
                for measure in small.measures
                if measure.endswith(PER_PAGE)
            ]
    return found


def grown(small: Result, large: Result, measure: str) -> Limit:
    c, rs = (b / a for a, b in zip(small.medians(measure), large.medians(measure)))
    what = f"{small.workload}: {measure} at {large.mib} MiB / at {small.mib} MiB"
    return Limit(what, c, rs, DEFAULTS_GROWTH)


def passes(results: Results) -> list[Limit]:
    scan, reference = (results.get((name, BASE_MIB)) for name in ("unique", "reference"))
    if not (scan and reference):
        return []
    c, rs = (a / b for a, b in zip(scan.medians(SCAN), reference.medians(CHECKSUM_PASS)))
    return [Limit("a scan of unique pages / one pass of xxh3", c, rs, PASSES)]
