# SPDX-License-Identifier: GPL-2.0
"""Results in the kernel's Test Anything Protocol, as its programs print them."""

import re
from dataclasses import dataclass
from enum import IntEnum

REPORT = re.compile(
    r"^(?P<bad>not )?ok (?P<number>\d+) ?(?P<text>[^#\n]*)"
    r"(?P<skip># (?:SKIP|XFAIL) ?(?P<why>.*))?$",
    re.M,
)


class Outcome(IntEnum):
    """In order of merit."""

    FAIL = 0
    SKIP = 1
    PASS = 2


@dataclass(frozen=True)
class Verdict:
    """The result of one test point, and the reason if it did not pass."""

    outcome: Outcome
    reason: str = ""


def verdicts(output: str) -> dict[int, Verdict]:
    """What a program has reported, by the number of the test point."""
    return {int(report["number"]): verdict(report) for report in REPORT.finditer(output)}


def verdict(report: re.Match) -> Verdict:
    if report["skip"]:
        return Verdict(Outcome.SKIP, report["why"])
    return Verdict(Outcome.FAIL, report["text"]) if report["bad"] else Verdict(Outcome.PASS)


def last_remark(output: str) -> str:
    """The last comment before the first report."""
    first = REPORT.search(output)
    remarks = re.findall(r"^# (.*)$", output[: first and first.start()], re.M)
    return remarks[-1] if remarks else ""
