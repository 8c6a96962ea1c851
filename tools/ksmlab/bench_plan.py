# SPDX-License-Identifier: GPL-2.0
"""What the benchmark runs, and what a run needs."""

from dataclasses import dataclass

# As `ksm-bench list` has them, in the order of the tables.
WORKLOADS = (
    "unique",
    "differ-0",
    "differ-64",
    "differ-2048",
    "differ-4088",
    "volatile",
    "pairs",
    "half-dup",
    "same",
    "zero",
    "only-zeros",
    "sparse",
    "vmas",
    "processes",
    "unmerge",
    "exit",
    "fork",
    "cow",
    "rmap-2",
    "rmap-256",
    "rmap-4096",
    "madvise",
    "locks",
    "holds",
    "default-unique",
    "default-pairs",
    "default-same",
    "default-zero",
    "default-ended",
    "mixed",
    "tenants",
    "refaults",
    "changes",
    "gone",
    "merge-any",
    "compiler",
    "reference",
)

# Memory in huge pages, which User Mode Linux does not have.
HUGE = ("huge-unique", "huge-differ-4088", "huge-pairs", "huge-zero", "huge-curve")

ALL = (*WORKLOADS, *HUGE)

# With less memory a kernel has no huge pages.
HUGE_MIB = 1024

# Of the shares of duplicates that are looked at, the smallest is to be some pages.
CURVE_MIB = 256

BASE_MIB = 256
ROUNDS = 5

# What costs about the same with either KSM takes more rounds to tell apart.
CLOSE = ("exit", "fork", "cow", "rmap-2", "madvise", "changes", "merge-any", "compiler")
CLOSE_ROUNDS = 15

# Workloads of which costs are shown over sizes, and how often each is run:
# the largest take many minutes.
GROWING = ("unique", "same")
GROWTH_ROUNDS = {64: 5, 1024: 3, 8192: 1}

# The same at the default settings, up to what a machine of 24 GiB has room for.
DEFAULTS = ("default-unique", "default-pairs", "default-same", "default-zero", "default-ended")
DEFAULTS_GROWTH_ROUNDS = {2048: 2, 16384: 1}

# At sizes above this, what happens once in a run is not repeated in it.
LARGE_MIB = 1024

QUICK_MIB = 64

# Emulated, instructions are counted: that needs little memory and few rounds.
EMULATED = (
    "unique",
    "differ-4088",
    "volatile",
    "pairs",
    "same",
    "zero",
    "only-zeros",
    "unmerge",
    "cow",
    "locks",
    "holds",
    "refaults",
    "changes",
    "merge-any",
)
EMULATED_MIB = 32
EMULATED_ROUNDS = 2

# What the 10,000 processes of `holds` take, which is run once, as it takes minutes.
PROCESSES_MIB = 2500


@dataclass(frozen=True)
class Job:
    """One workload at one size, to be run several times against each KSM."""

    workload: str
    mib: int
    rounds: int

    @property
    def name(self) -> str:
        return f"{self.workload}-{self.mib}"

    def command(self) -> list[str]:
        words = ["ksm-bench", "run", self.workload, "--mib", str(self.mib)]
        return words + (["--scans", "3", "--rounds", "1"] if self.mib > LARGE_MIB else [])

    def memory_mib(self) -> int:
        """Content, metadata and page tables, and room for 500 processes or for swap."""
        if self.workload in HUGE:
            return self.mib * 13 // 10 + HUGE_MIB
        if self.workload == "holds":
            return self.mib * 13 // 10 + PROCESSES_MIB
        if self.workload in DEFAULTS:
            return self.mib * 107 // 100 + 500
        return self.mib * 13 // 10 + 400

    def timeout(self, slowness: int) -> float:
        """Seconds after which a run is stuck."""
        return slowness * (240 + self.mib / 4)

    def seconds(self) -> float:
        """A guess at how long a run takes, to be corrected by how long others took."""
        return 3 + self.mib / (80 if self.workload in DEFAULTS else 40)

    def orders(self, sides: list[str]) -> list[list[str]]:
        """Which side is first in each round: what changes on the machine meets both."""
        return [sides if number % 2 == 0 else sides[::-1] for number in range(self.rounds)]


def full() -> list[Job]:
    """All workloads, and growth."""
    base = [Job(workload, BASE_MIB, usual_rounds(workload)) for workload in WORKLOADS]
    return base + growth(GROWING, GROWTH_ROUNDS) + growth(DEFAULTS, DEFAULTS_GROWTH_ROUNDS)


def growth(workloads: tuple[str, ...], rounds: dict[int, int]) -> list[Job]:
    """Each of the workloads at each size."""
    return [
        Job(workload, mib, number) for mib, number in rounds.items() for workload in workloads
    ]


def usual_rounds(workload: str) -> int:
    """At native speed."""
    return CLOSE_ROUNDS if workload in CLOSE else ROUNDS


def emulated() -> list[Job]:
    """Whether instructions tell the same as time does, and how long locks are held."""
    return [emulated_job(workload) for workload in (*EMULATED, *HUGE)]


def emulated_job(workload: str) -> Job:
    """With instructions counted, one round tells nearly all, and of what is no time, all."""
    if workload == "huge-curve":
        return Job(workload, CURVE_MIB, 1)
    return Job(workload, EMULATED_MIB, 1 if workload == "holds" else EMULATED_ROUNDS)


def quick() -> list[Job]:
    """All workloads once, at a small size: whether it runs, not how fast."""
    return [Job(workload, QUICK_MIB, 1) for workload in WORKLOADS]
