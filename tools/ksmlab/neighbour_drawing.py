# SPDX-License-Identifier: GPL-2.0
"""Draws how much slower neighbours of a scan were."""

import argparse
from pathlib import Path

from matplotlib.axes import Axes

from . import bench_figure, neighbour_results
from .bench_figure import OTHER, OURS, plain_numbers
from .main import main
from .neighbour_plan import NOBODY
from .neighbour_results import QUANTILES, Samples

# Pixels for a neighbour, and for what stands above and below all.
HEIGHT, REST = 230, 60

# A point for each quantile: the further out, the paler.
MARKS = {"p50": ("o", 1.0), "p99": ("D", 0.8), "p999": ("|", 0.6)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ksmlab.neighbour_drawing", description=__doc__)
    parser.add_argument("directory", type=Path, help="where the results are")
    return parser.parse_args()


def panel(axes: Axes, samples: Samples, neighbour: str) -> None:
    """Times of that with nobody scanning, scan by scan."""
    scans = [scan for scan in reversed(samples) if scan != NOBODY]
    for place, scan in enumerate(scans):
        color = OTHER if scan.startswith("C") else OURS
        for quantile in QUANTILES:
            mark, alpha = MARKS[quantile]
            times = neighbour_results.ratio(samples, scan, neighbour, quantile)
            axes.plot(times, place, mark, color=color, alpha=alpha, markersize=8)
    axes.set_yticks(range(len(scans)), scans)
    axes.axvline(1, color=OTHER, linewidth=0.8)
    axes.set_title(f"{neighbour}, against nobody scanning (● p50, ◆ p99, | p99.9)")
    axes.grid(axis="x")
    axes.xaxis.set_major_formatter(plain_numbers())
    axes.spines[["top", "right"]].set_visible(False)


def run() -> int:
    directory = parse().directory
    samples = neighbour_results.load(directory)
    names = neighbour_results.neighbours(samples)
    drawing = bench_figure.figure(HEIGHT * len(names) + REST)
    for place, name in enumerate(names, 1):
        panel(drawing.add_subplot(len(names), 1, place), samples, name)
    bench_figure.save(drawing, directory / "neighbour.svg")
    return 0


if __name__ == "__main__":
    main(run)
