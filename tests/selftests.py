# SPDX-License-Identifier: GPL-2.0
"""The kernel's own tests of KSM: which there are, and how a run of them went.

Which programs are run with which options is read from the kernel's own
script, and the names of what they test from their sources.
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import ktap
from harness import SLOWNESS, Result, Vm
from ksmlab import flavour, selftests
from ksmlab.paths import REPO
from ktap import Outcome, Verdict

# Categories of run_vmtests.sh: those that ksft_ksm.sh, ksft_ksm_numa.sh,
# ksft_rmap.sh and ksft_vma_merge.sh select.
COMMAND = re.compile(r'^CATEGORY="(?:ksm|ksm_numa|rmap|vma_merge)" run_test \./(.+)$', re.M)

# What the script leaves out: merging by prctl, and the times that breaking of
# COW and unmerging take.
MORE_COMMANDS = ("ksm_tests -M -p 10 -t 1", "ksm_tests -C", "ksm_tests -D -s 100")

# These fail now and then, whichever KSM runs: how often they may be tried.  They
# take the end of a scan that had begun before for a whole one, and so one of them
# fails as often as not.  `rmap` has a page moved that up to a hundred processes map: that
# fails at times, which it reports as skipped, and it ends itself after 30 seconds.
TRIES = {"ksm_tests -U": 3, "ksm_tests -N -m 1": 10, "rmap": 3}

# These wait up to two minutes for a scan of much memory, and keep a CPU busy meanwhile.
# It has to be interrupted for each page that is merged, which takes milliseconds if it
# is an emulated one that shares a real one.  So they and ksmd have one CPU together.
ON_ONE_CPU = {f"ksm_tests -{test} -s 100" for test in "HPD"} | {"ksm_tests -C"}

MACHINE = {"um": {"mem": "768M"}, "x86": {"mem": "2G", "numa": 2}}
# Seconds for all commands, and for each.
TIMEOUT = 1200
LIMIT = 400

# Exit statuses of a program that has nothing to complain of.
PASSED, SKIPPED = 0, 4

DID_NOT_RUN = Verdict(Outcome.FAIL, "did not run")


@dataclass(frozen=True)
class Point:
    """One thing that a command tests; it reports by number."""

    command: str
    number: int
    name: str

    def __str__(self) -> str:
        return f"{self.command}: {self.name}" if self.name else self.command


def commands() -> list[str]:
    script = (selftests.sources() / "run_vmtests.sh").read_text()
    return [*COMMAND.findall(script), *MORE_COMMANDS]


def points() -> list[Point]:
    return [
        Point(command, number, name)
        for command in commands()
        for number, name in enumerate(names(command.split()[0]), 1)
    ]


def names(program: str) -> list[str]:
    """What a program tests, in the order in which it reports."""
    text = (selftests.sources() / f"{program}.c").read_text()
    if "TEST_HARNESS_MAIN" in text:
        return names_of_harness(text)
    main = text[text.index("int main(") :]
    return re.findall(r"^\ttest_(\w+)\(\);", main, re.M) or [""]


def names_of_harness(text: str) -> list[str]:
    """The kernel's harness goes fixture by fixture, and each variant by variant."""
    variants = re.findall(r"^FIXTURE_VARIANT_ADD\((\w+), (\w+)\)", text, re.M)
    tests = re.findall(r"^TEST_F\((\w+), (\w+)\)", text, re.M)
    return [
        ".".join(filter(None, (fixture, variant, test)))
        for fixture in re.findall(r"^FIXTURE\((\w+)\)", text, re.M)
        for variant in [name for of, name in variants if of == fixture] or [""]
        for test in [name for of, name in tests if of == fixture]
    ]


@dataclass
class Column:
    """All results under one KSM, and how the run of the VM ended."""

    boot: Result
    output: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, int] = field(default_factory=dict)

    def verdict(self, point: Point) -> Verdict:
        output = self.output.get(point.command, "")
        verdict = ktap.verdicts(output).get(point.number, DID_NOT_RUN)
        # A program that tests one thing only reports its name, with any outcome.
        if not point.name and verdict.outcome < Outcome.PASS:
            return replace(verdict, reason=ktap.last_remark(output) or verdict.reason)
        return verdict

    def content(self, command: str) -> bool:
        """Whether the program ended without a complaint."""
        return self.status.get(command) in (PASSED, SKIPPED)


def run(directory: Path, lane: str, ksm: str) -> Column:
    """Run all commands in one VM."""
    share = directory / "share"
    share.mkdir(parents=True)
    (share / "commands").write_text("".join(map(order, commands())))
    limit = LIMIT * SLOWNESS[flavour.usual()]
    guest = [REPO / "tests/selftests-guest", selftests.directory(), "/mnt/share", limit]
    options = {"share": share, "timeout": TIMEOUT, **MACHINE[lane]}
    boot = Vm(directory).run(*map(str, guest), lane=lane, ksm=ksm, **options)
    return collect(share, boot)


def order(command: str) -> str:
    """How the VM is told of a command."""
    cpus = "one" if command in ON_ONE_CPU else "all"
    return f"{TRIES.get(command, 1)} {cpus} {command}\n"


def collect(share: Path, boot: Result) -> Column:
    """Read what the VM has left in the shared directory."""
    column = Column(boot)
    for count, command in enumerate(commands(), 1):
        output, end = share / f"{count}.output", share / f"{count}.end"
        if output.exists():
            column.output[command] = output.read_text(errors="replace")
        if end.exists():
            column.status[command], column.seconds[command] = map(int, end.read_text().split())
    return column
