# SPDX-License-Identifier: GPL-2.0
"""How much slower neighbours were: kept in a file, and as a table."""

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from .bench_results import in_lines
from .bench_table import number, table as markdown
from .neighbour_plan import NOBODY
from .shell import output

FILE = "samples.json"

QUANTILES = ("p50", "p99", "p999")

# How the counters of a scan are called in a table.
SUMS = {
    "pages_per_second": "pages a second",
    "merged_per_second": "merges a second",
    "percent_of_its_cpu": "% of its CPU",
}


@dataclass
class Sample:
    """One round of one scan."""

    quantiles: dict[str, dict[str, float]]  # of each neighbour
    sums: dict[str, float]  # of the scan


# The rounds of each scan, by its name.
Samples = dict[str, list[Sample]]


def caches() -> str:
    """What the machine says that it has."""
    listing = json.loads(output("lscpu", "--json", "--caches=NAME,ONE-SIZE,ALL-SIZE") or "{}")
    found = [f"{one['name']} {one['one-size']}" for one in listing.get("caches", ())]
    return ", ".join(found) or "unknown"


def save(samples: Samples, about: dict[str, str], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    record = {
        "circumstances": about,
        "samples": {name: [asdict(one) for one in rounds] for name, rounds in samples.items()},
    }
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (directory / FILE).write_text(in_lines(text) + "\n")
    (directory / "table.md").write_text(table(samples) + "\n")


def load(directory: Path) -> Samples:
    samples = json.loads((directory / FILE).read_text())["samples"]
    return {name: [Sample(**one) for one in rounds] for name, rounds in samples.items()}


def neighbours(samples: Samples) -> list[str]:
    return list(next(iter(samples.values()))[0].quantiles)


def median(rounds: list[Sample], neighbour: str, quantile: str) -> float:
    return statistics.median(one.quantiles[neighbour][quantile] for one in rounds)


def ratio(samples: Samples, scan: str, neighbour: str, quantile: str) -> float | None:
    """How many times as long as with nobody scanning: the median of rounds."""
    if NOBODY not in samples:
        return None
    pairs = zip(samples[scan], samples[NOBODY])
    return statistics.median(
        one.quantiles[neighbour][quantile] / alone.quantiles[neighbour][quantile]
        for one, alone in pairs
    )


def cell(samples: Samples, scan: str, neighbour: str, quantile: str) -> str:
    value = number(median(samples[scan], neighbour, quantile))
    times = ratio(samples, scan, neighbour, quantile)
    return value if times is None or scan == NOBODY else f"{value} ({times:.2f})"


def table(samples: Samples) -> str:
    """A row for each scan; in brackets how many times that with nobody scanning."""
    columns = [(one, quantile) for one in neighbours(samples) for quantile in QUANTILES]
    head = ["", *(f"{one} {quantile}" for one, quantile in columns), *SUMS.values()]
    rows = [
        [
            scan,
            *(cell(samples, scan, *column) for column in columns),
            *(number(statistics.median(one.sums[name] for one in rounds)) for name in SUMS),
        ]
        for scan, rounds in samples.items()
    ]
    return markdown(head, rows)
