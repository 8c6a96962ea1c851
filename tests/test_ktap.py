# SPDX-License-Identifier: GPL-2.0
"""The results of the kernel's own tests are read as they are meant."""

import pytest

import ktap
import selftests
from ktap import Outcome, Verdict


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("ok 3 Pages were unmerged", Verdict(Outcome.PASS)),
        ("ok 3", Verdict(Outcome.PASS)),
        ("not ok 3 Binary not found", Verdict(Outcome.FAIL, "Binary not found")),
        ("ok 3 # SKIP no NUMA", Verdict(Outcome.SKIP, "no NUMA")),
        ("ok 3 merge.x # SKIP no uprobes", Verdict(Outcome.SKIP, "no uprobes")),
        ("not ok 3 # XFAIL known", Verdict(Outcome.SKIP, "known")),
    ],
)
def test_verdicts(line, verdict):
    assert ktap.verdicts(f"TAP version 13\n1..3\n# [RUN] x\n{line}\n# Totals") == {3: verdict}


def test_remarks_and_indented_reports_are_no_verdicts():
    assert ktap.verdicts("# ok 1 x\n  ok 2 y\nBail out! ok 3 z") == {}


def test_last_remark():
    assert ktap.last_remark("1..1\n# one\n# two\nok 1 # SKIP x\n# three") == "two"
    assert ktap.last_remark("# only") == "only"
    assert ktap.last_remark("ok 1 x") == ""


def test_points_are_named_as_the_programs_name_them():
    text = """
FIXTURE(a)
FIXTURE_VARIANT(a)
FIXTURE_VARIANT_ADD(a, one)
FIXTURE_VARIANT_ADD(a, two)
FIXTURE(b)
TEST_F(a, x)
TEST_F(b, y)
"""
    assert selftests.names_of_harness(text) == ["a.one.x", "a.two.x", "b.y"]


def test_there_are_points_of_every_program():
    programs = {point.command.split()[0] for point in selftests.points()}
    assert programs == set(selftests.selftests.PROGRAMS)
