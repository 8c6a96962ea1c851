# SPDX-License-Identifier: GPL-2.0
"""The KUnit tests: which ones the sources have, and what a kernel log says."""

import json
import re
import subprocess
import sys
from pathlib import Path

from ksmlab import source
from ksmlab.sources import module_sources

SUITE = re.compile(r"kunit_tests\((\w+)\)")
CASE = re.compile(r"#\[test\]\s*(?:#\[[^\]]*\]\s*)*fn (\w+)")


def in_sources() -> list[tuple[str, str]]:
    """Suite and name of each test in the module's sources.

    A suite stands at the end of its file, so all tests of a file belong to it.
    """
    found = []
    for path in module_sources():
        text = path.read_text()
        suites = list(SUITE.finditer(text))
        ends = [suite.start() for suite in suites[1:]] + [len(text)]
        for suite, end in zip(suites, ends):
            found += [(suite[1], case) for case in CASE.findall(text[suite.end() : end])]
    return found


def module_output(log: str) -> str:
    """The part of a log that the module's suites wrote when it was loaded."""
    starts = [at.start() for at in re.finditer(r"^.*KTAP version 1$", log, re.M)]
    top = [at for at in starts if not re.search(r"\]\s{2,}KTAP", log[at:].splitlines()[0])]
    return log[top[-1] :] if top else log


def results(log: str, scratch: Path) -> dict[tuple[str, str], str]:
    """Status of each test in `log`, as the kernel tree's own parser reads it."""
    captured, parsed = scratch / "ktap", scratch / "kunit.json"
    captured.write_text(module_output(log))
    parser = source.patched(source.find()) / "tools/testing/kunit/kunit.py"
    subprocess.run(
        [sys.executable, parser, "parse", f"--json={parsed}", captured], capture_output=True
    )
    return dict(walk(json.loads(parsed.read_text())))


def failure(log: str, name: str) -> str:
    """What the log says between a failed assertion and the test's result."""
    said = re.search(rf"^.*# {name}: .*FAILED(?:.*\n)+?.*not ok \d+ {name}$", log, re.M)
    return said[0] if said else ""


def walk(group: dict, suite: str = ""):
    for case in group.get("test_cases", ()):
        yield (suite, case["name"]), case["status"]
    for inner in group.get("sub_groups", ()):
        yield from walk(inner, inner["name"])
