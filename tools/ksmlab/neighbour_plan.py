# SPDX-License-Identifier: GPL-2.0
"""Beside which scans the neighbours are measured."""

from dataclasses import dataclass

from .bench_results import C, OURS

# What is scanned: several times what the CPUs share of caches, if that is not very much.
MIB = 1024

# Pages a second that both can pass with much of a CPU to spare, and pages that come to have an equal.
PACE = 100_000
MERGING = 2_000

# No page is scanned.
NOBODY = "nobody scans"


@dataclass(frozen=True)
class Scan:
    """A side of the comparison."""

    name: str
    ksm: str
    words: tuple[str, ...]

    def command(self, mib: int, seconds: float) -> list[str]:
        program = ["ksm-bench", "hold", "--mib", str(mib), "--seconds", str(round(seconds))]
        return [*program, *self.words]


def at_pace(pace: int) -> tuple[str, str]:
    return ("--pace", str(pace))


# Milliseconds from step to step: ten times as many as by default, so the same pages come in bursts.
BURSTS = ("--pause", "200")

UNTOUCHED = ("--set", "skip_untouched=1")

SCANS = (
    Scan(NOBODY, OURS, at_pace(0)),
    Scan("C, full speed", C, ()),
    Scan("Rust, full speed", OURS, ()),
    Scan("Rust, full speed, skip_untouched", OURS, UNTOUCHED),
    Scan("C, equal pages a second", C, at_pace(PACE)),
    Scan("Rust, equal pages a second", OURS, at_pace(PACE)),
    Scan("Rust, equal pages a second, in bursts", OURS, (*at_pace(PACE), *BURSTS)),
    Scan("Rust, equal pages a second, skip_untouched", OURS, (*at_pace(PACE), *UNTOUCHED)),
    Scan("C, equal merges a second", C, (*at_pace(PACE), "--merging", str(MERGING))),
    Scan("Rust, equal merges a second", OURS, (*at_pace(PACE), "--merging", str(MERGING))),
)
