# SPDX-License-Identifier: GPL-2.0
"""The kernel's own tests of KSM, under the kernel's own KSM and under ours.

What passes there must pass here, and what fails there is no excuse.
"""

from functools import cache

import pytest

import selftests
from harness import LANES, limit
from ktap import Outcome
from selftests import Column, Point

KSMS = ("c", "rs")

# The first test of a lane runs the VMs of both.
pytestmark = pytest.mark.timeout(limit(selftests.TIMEOUT * len(KSMS)))


def in_lanes(values: list[tuple]) -> list:
    """Parameters for both lanes; the tests of a lane share two runs of the VM."""
    return [
        pytest.param(lane, *value, id="-".join([lane, *map(str, value)]), marks=group(lane))
        for lane in LANES
        for value in values
    ]


def group(lane: str):
    return pytest.mark.xdist_group(f"selftests-{lane}")


@pytest.fixture(scope="module")
def columns(tmp_path_factory):
    """A lane's results: those under C, and those under Rust."""

    @cache
    def of(lane: str) -> tuple[Column, Column]:
        directory = tmp_path_factory.mktemp(f"selftests-{lane}")
        c, rs = (selftests.run(directory / ksm, lane, ksm) for ksm in KSMS)
        return c, rs

    return of


@pytest.mark.parametrize(("lane", "point"), in_lanes([(point,) for point in selftests.points()]))
def test_point(columns, lane, point):
    c, rs = (column.verdict(point) for column in columns(lane))
    both = f"{c.outcome.name} under c, {rs.outcome.name} under rs"
    if rs.outcome == Outcome.SKIP == c.outcome:
        pytest.skip(f"{both}: {rs.reason}")
    if rs.outcome < Outcome.PASS:
        output = columns(lane)[1].output.get(point.command, "")
        pytest.fail(f"{both}:\n{output}")


@pytest.mark.parametrize("lane", in_lanes([()]))
def test_whole_run(columns, lane, record_property):
    c, rs = columns(lane)
    record_property(f"selftests in the lane {lane}", table(c, rs))
    worse = [name for name in selftests.commands() if c.content(name) and not rs.content(name)]
    assert c.boot.status == 0, c.boot.explain()
    assert rs.boot.status == 0, rs.boot.explain()
    assert not worse


def table(c: Column, rs: Column) -> str:
    """Both columns for all test points, and the seconds that commands took."""
    lines = [f"\n{'c':>12} {'rs':>12}"]
    for point in selftests.points():
        lines.append(f"{cell(c, point)} {cell(rs, point)}  {point}{reason(c, rs, point)}")
    return "\n".join(lines)


def cell(column: Column, point: Point) -> str:
    """An outcome, and at the first point of a command how long that took."""
    seconds = column.seconds.get(point.command) if point.number == 1 else None
    time = "" if seconds is None else f"{seconds} s"
    return f"{time:>6} {column.verdict(point).outcome.name.lower():>5}"


def reason(c: Column, rs: Column, point: Point) -> str:
    reasons = {column.verdict(point).reason for column in (c, rs)} - {""}
    return f"  ({'; '.join(sorted(reasons))})" if reasons else ""
