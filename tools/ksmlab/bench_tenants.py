# SPDX-License-Identifier: GPL-2.0
"""A drawing of what guests save in many domains, and of what a scan costs."""

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from . import bench_curves, bench_table
from .bench_goals import Results
from .bench_results import OURS as OUR_SIDE

WORKLOAD = "tenants"

# The numbers of domains, in the order of the workload.
FEW, MANY = (1, 2, 4, 16, 64), (1, 4, 16, 64, 256, 1024)

PANELS = (
    ("64 equal guests", "saved_percent", "percent of memory saved", FEW),
    ("64 equal guests", "equal_ns_per_page", "ns a page and scan", FEW),
    ("1,024 guests, each page twice", "apart_ns_per_page", "ns a page and scan", MANY),
)


def draw(results: Results) -> dict[str, Figure]:
    """The drawing by the name of its file, if there are results."""
    result = next((one for (name, _), one in results.items() if name == WORKLOAD), None)
    if not result:
        return {}
    drawing, panels = bench_curves.empty([title for title, *_ in PANELS])
    for axes, (_, name, unit, domains) in zip(panels, PANELS):
        axes.set(xlabel="domains", ylabel=unit, xscale="log")
        axes.set_xticks(domains)
        axes.xaxis.set_minor_locator(NullLocator())
        both = (result.curve(result.other, name), result.curve(OUR_SIDE, name))
        bench_curves.plot(axes, domains, both, bench_table.sides(results), marker="o")
        axes.set_ylim(bottom=0)
    return {"tenants": drawing}
