# SPDX-License-Identifier: GPL-2.0
"""Results of the benchmark: samples, medians and ratios, kept in files."""

import json
import re
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

# Measures of which more is better.
GAINS = (
    "saved_pages_per_cpu_s",
    "merged_percent",
    "merged_percent_in_the_end",
    "merged_percent_of_late",
)

# How results name the sides of a comparison: the module of the work tree, and the kernel's own
# KSM or the module of another commit.
OURS = "rs"
C = "c"
BASE = "base"

Measures = dict[str, float]

# What one quantity was after each scan.
Curves = dict[str, list[float]]


@dataclass
class Ratio:
    """How many times better our side is than the other one: by medians, and in single rounds."""

    median: float
    lowest: float
    highest: float


@dataclass
class Result:
    """All runs of one workload at one size."""

    workload: str
    mib: int
    lane: str
    # What it ran on, and when.
    circumstances: dict[str, str]
    # Of each side, the measures of each round.
    samples: dict[str, list[Measures]]
    # The same for the curves of workloads that have any.
    curves: dict[str, list[Curves]] = field(default_factory=dict)
    # The commit that was compared with, if it was not the kernel's own KSM.
    base: str | None = None

    @property
    def other(self) -> str:
        """The side that ours is compared with."""
        return BASE if self.base else C

    @property
    def measures(self) -> list[str]:
        """Those of both sides: the kernel of another commit may have fewer events."""
        others = self.samples[self.other][0]
        return [name for name in self.samples[OURS][0] if name in others]

    def column(self, side: str, measure: str) -> list[float]:
        return [sample[measure] for sample in self.samples[side]]

    def median(self, side: str, measure: str) -> float:
        return statistics.median(self.column(side, measure))

    def medians(self, measure: str) -> tuple[float, float]:
        """Of the other side, and of ours."""
        return self.median(self.other, measure), self.median(OURS, measure)

    def columns(self, measure: str) -> tuple[list[float], list[float]]:
        """Of both sides: the first divided by the second says how many times better ours is."""
        other, ours = self.column(self.other, measure), self.column(OURS, measure)
        return (ours, other) if measure in GAINS else (other, ours)

    def single(self, measure: str) -> list[float]:
        """The ratio of each round."""
        return [a / b for a, b in zip(*self.columns(measure))]

    def ratio(self, measure: str) -> Ratio | None:
        """Nothing if there is nothing to be divided."""
        upper, lower = self.columns(measure)
        if min(upper + lower) <= 0:
            return None
        single = self.single(measure)
        return Ratio(statistics.median(upper) / statistics.median(lower), min(single), max(single))

    def curve(self, side: str, name: str) -> list[float]:
        """Of all rounds, scan by scan, the median; empty if there is no such curve."""
        rounds = [drawn[name] for drawn in self.curves.get(side, ()) if name in drawn]
        return [statistics.median(values) for values in zip(*rounds)]

    def save(self, directory: Path) -> None:
        """Keep it, with medians and ratios for those who read the file."""
        directory.mkdir(parents=True, exist_ok=True)
        medians = {
            side: {measure: self.median(side, measure) for measure in self.measures}
            for side in self.samples
        }
        ratios = {measure: self.ratio(measure) for measure in self.measures}
        record = {
            **asdict(self),
            "medians": medians,
            "ratios": {measure: asdict(ratio) for measure, ratio in ratios.items() if ratio},
        }
        text = json.dumps(record, indent=2, ensure_ascii=False)
        (directory / file_name(self)).write_text(in_lines(text) + "\n")


def in_lines(text: str) -> str:
    """JSON with the numbers of a list, which may be many, in one line."""
    return re.sub(r"\[[\d\s.,]+\]", lambda numbers: " ".join(numbers[0].split()), text)


def suffix(lane: str, base: str | None) -> str:
    """What keeps the files of another lane or of another comparison apart."""
    return ("" if lane == "um" else f"-{lane}") + (f"-{base}" if base else "")


def file_name(result: Result) -> str:
    return f"{result.workload}-{result.mib}{suffix(result.lane, result.base)}.json"


def load(file: Path) -> Result:
    record = json.loads(file.read_text())
    known = Result.__dataclass_fields__.keys() & record.keys()
    return Result(**{name: record[name] for name in known})


def load_all(directory: Path, lane: str, base: str | None) -> dict[tuple[str, int], Result]:
    """All that is known of a comparison in a lane, from this time or an earlier one."""
    results = [load(file) for file in sorted(directory.glob("*.json"))]
    wanted = (lane, base)
    return {(one.workload, one.mib): one for one in results if (one.lane, one.base) == wanted}
