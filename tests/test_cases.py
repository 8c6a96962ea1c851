# SPDX-License-Identifier: GPL-2.0
"""Behaviour: each case of the program ksm-case, in a VM of its own, or with others like it.

A case names the lanes that have what it needs, so one that is left out there has failed. It cannot name what the
whole run loads the module with.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import seeds
from harness import SKIPPED, TIMEOUT, Result, Vm, limit, needs
from ksmlab import flavour, programs
from ksmlab.paths import REPO

# Cases to a VM. User Mode Linux boots in half a second, the kernel of the lane x86 in several; a
# debug kernel takes half a minute to boot and, in the end, to look for what is lost.
SHARING = {
    flavour.ORDINARY: {"um": 1, "x86": 4},
    flavour.DEBUG: {"um": 16, "x86": 16},
    flavour.KCSAN: {"x86": 16},
}


@dataclass
class Lane:
    """A lane that a case runs in, and options of tools/vm for it."""

    name: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "Lane":
        name, *options = text.split(":")
        return cls(name, dict(option.split("=", 1) for option in options))


@dataclass
class Case:
    name: str
    lanes: list[Lane]
    memory: str
    modes: list[str]


def all_cases() -> list[Case]:
    """What `ksm-case LIST` says."""
    listing = subprocess.run(
        [programs.directory() / "ksm-case", "LIST"], check=True, capture_output=True, text=True
    )
    rows = [line.split("\t") for line in listing.stdout.splitlines()]
    return [
        Case(name, list(map(Lane.parse, lanes.split(","))), memory, modes.split(","))
        for name, lanes, memory, modes, _description in rows
    ]


@dataclass(frozen=True)
class Machine:
    """What a VM must be for a case."""

    lane: str
    mode: str
    options: tuple[tuple[str, str], ...]

    def id(self, case: str) -> str:
        return f"{self.lane}-{case}" + ("" if self.mode == "rs" else f"-{self.mode}")


@dataclass(frozen=True)
class Batch:
    """Cases that share a VM."""

    machine: Machine
    names: tuple[str, ...]

    def seconds(self) -> int:
        """How long the VM may take, in an ordinary kernel."""
        return TIMEOUT[self.machine.lane] * len(self.names)

    def run(self, directory: Path) -> "Run":
        lane = self.machine.lane
        share = directory / "cases"
        share.mkdir()
        options = dict(self.machine.options)
        if self.machine.mode == "none":
            options["no_module"] = True
        arguments = (needs(lane)["timeout"], seeds.chosen())
        command = [REPO / "tests/run-cases", "/mnt/share", *arguments, *self.names]
        result = Vm(directory).run(
            *map(str, command),
            lane=lane,
            share=share,
            timeout=self.seconds(),
            **options,
        )
        return Run(result, share)


@dataclass
class Run:
    """How the VM of a batch has ended, and its cases."""

    vm: Result
    share: Path

    def status(self, name: str) -> int | None:
        path = self.share / f"{name}.status"
        return int(path.read_text()) if path.exists() else None

    def text(self, name: str) -> str:
        path = self.share / name
        return path.read_text(errors="replace") if path.exists() else "(did not begin)"


def batches() -> list[Batch]:
    alike: dict[Machine, list[str]] = {}
    for case in all_cases():
        for mode in case.modes:
            for lane in case.lanes:
                options = {"mem": case.memory, **lane.options}
                machine = Machine(lane.name, mode, tuple(options.items()))
                alike.setdefault(machine, []).append(case.name)
    return [batch for machine, names in alike.items() for batch in shared(machine, names)]


def shared(machine: Machine, names: list[str]) -> list[Batch]:
    """The names, divided into as many as share a VM."""
    size = SHARING[flavour.usual()][machine.lane]
    return [
        Batch(machine, tuple(names[first : first + size])) for first in range(0, len(names), size)
    ]


def parameters() -> list:
    return [
        pytest.param(
            batch,
            name,
            id=batch.machine.id(name),
            marks=[
                pytest.mark.xdist_group(batch.machine.id(batch.names[0])),
                pytest.mark.timeout(limit(batch.seconds())),
            ],
        )
        for batch in batches()
        for name in batch.names
    ]


@pytest.fixture(scope="module")
def runs():
    """The runs so far: the first case that is asked for runs all of its batch."""
    return {}


@pytest.mark.parametrize(("batch", "name"), parameters())
def test_case(runs, tmp_path, batch, name):
    if batch not in runs:
        runs[batch] = batch.run(tmp_path)
    run = runs[batch]
    if run.status(name) == SKIPPED and os.environ.get("KSM_RS_PARAMETERS"):
        pytest.skip(run.text(name))
    assert (run.vm.status, run.status(name)) == (0, 0), f"{run.text(name)}\n{run.vm.explain()}"
