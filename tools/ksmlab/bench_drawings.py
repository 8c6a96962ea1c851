# SPDX-License-Identifier: GPL-2.0
"""Draws results of the benchmark, as SVG files beside them."""

import argparse
from collections import Counter
from pathlib import Path

from . import bench_bars, bench_curves, bench_figure, bench_huge, bench_results, bench_tenants
from .bench_goals import Results
from .main import main
from .say import Failure

# Where a CPU is emulated, its clock counts instructions.
UNITS = {"um": "nanoseconds", "x86": "instructions"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ksmlab.bench_drawings", description=__doc__)
    add = parser.add_argument
    add("directory", type=Path, help="where the results are")
    add("--lane", choices=UNITS, default="um", help="the lane that they are from")
    add("--base", metavar="COMMIT", help="the commit that was compared with, if it was not C")
    return parser.parse_args()


def usual_size(results: Results) -> int:
    """The size at which there are most workloads."""
    return Counter(mib for _, mib in sorted(results)).most_common(1)[0][0]


def draw(results: Results, unit: str, directory: Path, suffix: str) -> None:
    mib = usual_size(results)
    drawings = {
        **bench_bars.draw(results, mib, unit),
        **bench_curves.draw(results, mib),
        **bench_huge.draw(results),
        **bench_tenants.draw(results),
    }
    for name, drawing in drawings.items():
        bench_figure.save(drawing, directory / f"{name}{suffix}.svg")


def run() -> int:
    options = parse()
    results = bench_results.load_all(options.directory, options.lane, options.base)
    if not results:
        raise Failure(f"there are no results in {options.directory}")
    suffix = bench_results.suffix(options.lane, options.base)
    draw(results, UNITS[options.lane], options.directory, suffix)
    return 0


if __name__ == "__main__":
    main(run)
