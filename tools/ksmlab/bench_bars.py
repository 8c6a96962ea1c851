# SPDX-License-Identifier: GPL-2.0
"""Drawings of workloads one below the other, with bars on a logarithmic scale."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from . import bench_goals, bench_table
from .bench_figure import BETTER, INK, OTHER, OURS, WORSE, beside, figure, plain_numbers
from .bench_goals import Results
from .bench_results import Ratio, Result
from .bench_table import number

# What is drawn, from top to bottom, and under which name.
ROWS = (
    ("first scan", "unique", "first_scan_ns_per_page"),
    ("unique pages", "unique", "scan_ns_per_page"),
    ("differ at byte 0", "differ-0", "scan_ns_per_page"),
    ("differ at byte 64", "differ-64", "scan_ns_per_page"),
    ("differ at byte 2048", "differ-2048", "scan_ns_per_page"),
    ("differ at byte 4088", "differ-4088", "scan_ns_per_page"),
    ("half volatile", "volatile", "scan_ns_per_page"),
    ("vmas of 4 pages", "vmas", "scan_ns_per_page"),
    ("processes of 16 pages", "processes", "scan_ns_per_page"),
    ("1 page in 32 GiB", "sparse", "scan_ns"),
    ("merging pairs", "pairs", "merge_ns_per_page"),
    ("merging, half are pairs", "half-dup", "merge_ns_per_page"),
    ("merging, all the same", "same", "merge_ns_per_page"),
    ("merging zeros", "zero", "merge_ns_per_page"),
    ("all merged, pairs", "pairs", "steady_ns_per_page"),
    ("all merged, the same", "same", "steady_ns_per_page"),
    ("defaults: unique", "default-unique", "steady_ns_per_page"),
    ("defaults: merging pairs", "default-pairs", "merge_ns_per_page"),
    ("defaults: all merged", "default-pairs", "steady_ns_per_page"),
    ("  first page changes", "default-pairs", "first_ns_per_page"),
    ("  1 in 1,000 changes", "default-pairs", "thousandth_ns_per_page"),
    ("defaults: a process ends", "default-ended", "ended_ns_per_page"),
    ("defaults: mixed", "mixed", "scan_ns_per_page"),
    ("unmerging, run=2", "unmerge", "unmerge_ns_per_page"),
    ("unmerging, madvise", "unmerge", "unmergeable_ns_per_page"),
    ("exit", "exit", "exit_ns_per_page"),
    ("fork", "fork", "fork_ns_per_page"),
    ("write fault", "cow", "fault_ns"),
    ("reclaim, 2 mappings", "rmap-2", "reclaim_ns_per_mapping"),
    ("reclaim, 256", "rmap-256", "reclaim_ns_per_mapping"),
    ("reverse walk, 4096", "rmap-4096", "walk_ns_per_mapping"),
    ("madvise call", "madvise", "mergeable_ns"),
)

# Pixels for each row, and for what is above and below all rows.
ROW, MARGIN = 24, 90

# The part of a row's height that its bars fill.
HEIGHT = 0.72

# On a scale of ratios: where a number ends, over where it begins.
NUMBER_WIDTH = 1.4

# Room behind the longest bar, for a number.
ROOM = 1.6

Row = tuple[str, Result, str]


def found(results: Results, mib: int) -> list[Row]:
    """The rows that there are results for, if both sides have cost anything."""
    rows = [
        (label, results[workload, mib], measure)
        for label, workload, measure in ROWS
        if (workload, mib) in results
    ]
    return [
        (label, result, measure)
        for label, result, measure in rows
        if measure in result.measures and result.ratio(measure)
    ]


def ratios(results: Results, mib: int) -> Figure:
    """How many times cheaper ours is."""
    rows = found(results, mib)
    other, ours = bench_table.sides(results)
    title = f"Cost: {other} / {ours}, {mib} MiB (upright stroke: goal)"
    drawing, axes = empty(title, "times", rows)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.axvline(1, color=INK, linewidth=1)
    for place, (_, result, measure) in enumerate(rows):
        wanted = bench_goals.ratio_wanted(result, measure)
        ratio_bar(axes, place, result.ratio(measure), wanted)
    widen(axes)
    return drawing


def ratio_bar(axes: Axes, place: int, ratio: Ratio, wanted: float | None) -> None:
    color = BETTER if ratio.median >= 1 else WORSE
    axes.barh(place, ratio.median - 1, HEIGHT, left=1, color=color)
    axes.plot([ratio.lowest, ratio.highest], [place, place], color=INK)
    end = max(ratio.highest, 1)
    if wanted and wanted > bench_goals.OTHERWISE:
        axes.plot([wanted, wanted], [place - 0.45, place + 0.45], color=INK)
        # The number does not stand across the stroke.
        end = wanted if end <= wanted < end * NUMBER_WIDTH else end
    beside(axes, number(ratio.median), end, place)


def costs(results: Results, mib: int, unit: str) -> Figure:
    """What either side costs."""
    rows = found(results, mib)
    other, ours = bench_table.sides(results)
    title = f"Cost in {unit}, {mib} MiB (grey: {other}, brown: {ours})"
    drawing, axes = empty(title, f"{unit} a page, mapping, scan or call", rows)
    for place, (_, result, measure) in enumerate(rows):
        medians = result.medians(measure)
        for offset, value, color in zip((-1, 1), medians, (OTHER, OURS)):
            axes.barh(place + offset * HEIGHT / 4, value, HEIGHT / 2, color=color)
        beside(axes, " / ".join(map(number, medians)), max(medians), place)
    widen(axes)
    return drawing


def empty(title: str, unit: str, rows: list[Row]) -> tuple[Figure, Axes]:
    """A drawing with the names of rows, and no bars yet."""
    drawing = figure(ROW * len(rows) + MARGIN)
    axes = drawing.add_subplot(title=title, xlabel=unit)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.grid(axis="x")
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    return drawing, axes


def widen(axes: Axes) -> None:
    least, most = axes.get_xlim()
    axes.set_xlim(least, most * ROOM)


def draw(results: Results, mib: int, unit: str) -> dict[str, Figure]:
    """Both drawings, by the names of their files, if there is anything to be drawn."""
    if not found(results, mib):
        return {}
    return {"ratios": ratios(results, mib), "cost": costs(results, mib, unit)}
