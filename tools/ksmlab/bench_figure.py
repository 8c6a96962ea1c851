# SPDX-License-Identifier: GPL-2.0
"""How drawings of the benchmark look: colours, letters and scales."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# The other side, ours, what is better and what is worse.
OTHER, OURS, BETTER, WORSE = "#8a8f98", "#c2561a", "#2f6fb3", "#c53030"
INK, GRID = "#22262c", "#dde0e4"

# In pixels.
WIDTH = 820
PIXELS_PER_INCH = 100

matplotlib.rcParams.update(
    {
        "figure.dpi": PIXELS_PER_INCH,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.titlesize": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.axisbelow": True,
        "grid.color": GRID,
        # Letters stay letters, and equal results make equal files.
        "svg.fonttype": "none",
        "svg.hashsalt": "ksm_rs",
    }
)


def figure(height: int) -> Figure:
    return Figure(figsize=(WIDTH / PIXELS_PER_INCH, height / PIXELS_PER_INCH))


def save(drawing: Figure, file: Path) -> None:
    drawing.savefig(file, metadata={"Date": None})


def plain_numbers() -> FuncFormatter:
    """Beside a scale: 10,000 and not 10^4."""
    return FuncFormatter(lambda value, _place: f"{value:,g}")


def beside(axes: Axes, text: str, x: float, y: float, rise: float = 0) -> None:
    """A text to the right of a place, or a little above it."""
    axes.annotate(text, (x, y), (5, rise), textcoords="offset points", va="center")
