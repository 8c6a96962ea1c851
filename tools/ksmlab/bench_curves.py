# SPDX-License-Identifier: GPL-2.0
"""Drawings of curves: cost of a page over the amount of memory, and merged duplicates over time."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from . import bench_table
from .bench_figure import OTHER, OURS, beside, figure, plain_numbers
from .bench_goals import Results
from .bench_results import OURS as OUR_SIDE

# Pixels for each row of panels, and how many stand in a row.
HEIGHT, IN_A_ROW = 340, 2

GROWTH = (
    ("unique pages", "unique", "scan_ns_per_page"),
    ("all merged, all the same", "same", "steady_ns_per_page"),
    ("defaults: unique", "default-unique", "steady_ns_per_page"),
    ("defaults: pairs, first page changes", "default-pairs", "first_ns_per_page"),
)

SHARES_WORKLOAD = "mixed"
SHARES = (
    ("of all duplicates, merged", "merged_percent"),
    ("of those that came up late", "merged_percent_of_late"),
)

# Scans in which nearly all is merged for the first time.
BEGINNING = 5

# A curve of the other side, and one of ours.
Pair = tuple[list[float], list[float]]


def draw(results: Results, mib: int) -> dict[str, Figure]:
    """All drawings for which there are results, by the names of their files."""
    drawings = {"growth": growth(results), "mixed": shares(results, mib)}
    return {name: drawing for name, drawing in drawings.items() if drawing}


def growth(results: Results) -> Figure | None:
    """Nothing where there is only one size."""
    found = [
        (title, measure, at_sizes)
        for title, workload, measure in GROWTH
        if len(at_sizes := bench_table.at_all_sizes(results, workload)) > 1
    ]
    if not found:
        return None
    drawing, panels = empty([title for title, *_ in found])
    for axes, (_, measure, at_sizes) in zip(panels, found):
        sizes = [result.mib for result in at_sizes]
        axes.set(xlabel="MiB", ylabel="ns a page and scan", xscale="log")
        axes.set_xticks(sizes)
        axes.xaxis.set_minor_locator(NullLocator())
        both = tuple(zip(*(result.medians(measure) for result in at_sizes)))
        plot(axes, sizes, both, bench_table.sides(results), marker="o")
        axes.set_ylim(bottom=0)
    return drawing


def shares(results: Results, mib: int) -> Figure | None:
    """Nothing where there are no curves."""
    result = results.get((SHARES_WORKLOAD, mib))
    if not result:
        return None
    found = [
        (title, (result.curve(result.other, name), result.curve(OUR_SIDE, name)))
        for title, name in SHARES
    ]
    found = [(title, both) for title, both in found if all(both)]
    if not found:
        return None
    drawing, panels = empty([title for title, _ in found])
    for axes, (_, both) in zip(panels, found):
        axes.set(xlabel="full scans", ylabel="percent of what is possible")
        scans = range(1, min(map(len, both)) + 1)
        plot(axes, scans, both, bench_table.sides(results))
        axes.set_ylim(min(map(least, both)), 102)
    return drawing


def least(percents: list[float]) -> float:
    """Where the scale begins: somewhat below all values but those of the beginning."""
    return min(percents[BEGINNING:], default=0) // 10 * 10


def empty(titles: list[str]) -> tuple[Figure, list[Axes]]:
    """A drawing with a panel for each title, two in a row."""
    rows = math.ceil(len(titles) / IN_A_ROW)
    drawing = figure(HEIGHT * rows)
    panels = [
        drawing.add_subplot(rows, min(len(titles), IN_A_ROW), place, title=title)
        for place, title in enumerate(titles, 1)
    ]
    for axes in panels:
        axes.grid()
        axes.xaxis.set_major_formatter(plain_numbers())
        axes.yaxis.set_major_formatter(plain_numbers())
        axes.spines[["top", "right"]].set_visible(False)
    return drawing, panels


def plot(axes: Axes, places: Sequence[int], both: Pair, names: tuple[str, str], **look) -> None:
    """Both curves, with their names behind their ends, the higher one's a little higher."""
    axes.xaxis.set_major_formatter(plain_numbers())
    ends = [curve[len(places) - 1] for curve in both]
    for curve, name, color in zip(both, names, (OTHER, OURS)):
        axes.plot(places, curve[: len(places)], color=color, **look)
        end = curve[len(places) - 1]
        beside(axes, name, places[-1], end, rise=4 if end == max(ends) else -4)
    axes.margins(x=0.02)
