# SPDX-License-Identifier: GPL-2.0
"""A drawing of what is saved in huge pages, against how many of these stay whole."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import bench_curves, bench_table
from .bench_figure import OTHER, OURS, beside
from .bench_goals import Results
from .bench_results import OURS as OUR_SIDE
from .bench_results import Result

WORKLOAD = "huge-curve"

# Of all pages, those that have an equal, in percent, as the workload names them.
DUPLICATES = ("0.2", "2", "20", "100")

# Values of huge_page_min_equal, in the order of the workload.
MIN_EQUAL = (1, 8, 64, 256)


def draw(results: Results) -> dict[str, Figure]:
    """The drawing by the name of its file, if there are results."""
    result = next((one for (name, _), one in results.items() if name == WORKLOAD), None)
    if not result:
        return {}
    drawing, panels = bench_curves.empty([f"{one} % of pages have an equal" for one in DUPLICATES])
    for axes, duplicates in zip(panels, DUPLICATES):
        axes.set(xlabel="percent of possible savings", ylabel="percent of huge pages whole")
        axes.set(xlim=(-4, 132), ylim=(-8, 112))
        plot(axes, result, duplicates, bench_table.sides(results))
    return {"huge": drawing}


def plot(axes: Axes, result: Result, duplicates: str, names: tuple[str, str]) -> None:
    for side, name, color in zip((result.other, OUR_SIDE), names, (OTHER, OURS)):
        saved, whole = points(result, side, duplicates)
        axes.plot(saved, whole, color=color, marker="o")
        if side == OUR_SIDE:
            for x, y, text in labels(saved, whole):
                beside(axes, text, x, y)
        else:
            beside(axes, name, saved[0], whole[0], rise=10)


def points(result: Result, side: str, duplicates: str) -> tuple[list[float], list[float]]:
    """Savings, and huge pages that are whole."""
    names = (f"saved_percent_of_{duplicates}", f"whole_percent_of_{duplicates}")
    return tuple(result.curve(side, name) for name in names)


def labels(saved: list[float], whole: list[float]) -> list[tuple[float, float, str]]:
    """One label for each place, with all values of huge_page_min_equal that lead there."""
    found: dict[tuple[float, float], list[str]] = {}
    for place, value in zip(zip(saved, whole), MIN_EQUAL):
        found.setdefault(place, []).append(str(value))
    return [(x, y, ", ".join(values)) for (x, y), values in found.items()]
