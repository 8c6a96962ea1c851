# SPDX-License-Identifier: GPL-2.0
"""Behaviour: each case of the program ksm-case, in a VM of its own."""

import subprocess
from dataclasses import dataclass

import pytest

from ksmlab import programs

SKIPPED = 77


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
    description: str


def all_cases() -> list[Case]:
    """What `ksm-case LIST` says."""
    listing = subprocess.run(
        [programs.directory() / "ksm-case", "LIST"], check=True, capture_output=True, text=True
    )
    rows = [line.split("\t") for line in listing.stdout.splitlines()]
    return [
        Case(name, list(map(Lane.parse, lanes.split(","))), memory, modes.split(","), description)
        for name, lanes, memory, modes, description in rows
    ]


def name(case: Case, mode: str, lane: Lane) -> str:
    return f"{lane.name}-{case.name}" + ("" if mode == "rs" else f"-{mode}")


def parameters() -> list:
    return [
        pytest.param(case, mode, lane, id=name(case, mode, lane))
        for case in all_cases()
        for mode in case.modes
        for lane in case.lanes
    ]


@pytest.mark.parametrize(("case", "mode", "lane"), parameters())
def test_case(vm, case, mode, lane):
    options = {"mem": case.memory, **lane.options}
    if mode == "none":
        options["no_module"] = True
    result = vm.run("ksm-case", case.name, lane=lane.name, **options)
    if result.status == SKIPPED:
        pytest.skip(result.text.strip().splitlines()[-1])
    assert result.status == 0, f"{case.description}\n{result.explain()}"
