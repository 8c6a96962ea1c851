# SPDX-License-Identifier: GPL-2.0
"""docs/mainline.md names the tests of each feature: they must exist."""

import re

import pytest

import kunit
import selftests
from ksmlab.paths import REPO
from test_cases import all_cases


def rows() -> list[str]:
    """The last column of each row but the heads of the tables."""
    lines = (REPO / "docs/mainline.md").read_text().splitlines()
    cells = [line.split("|")[-2].strip() for line in lines if line.startswith("|")]
    return [cell for cell in cells if cell not in ("shown by", "---")]


def existing() -> set[str]:
    return {
        *(case.name for case in all_cases()),
        *(f"kunit:{suite}" for suite, _ in kunit.in_sources()),
        *(f"selftest:{point}" for point in selftests.points()),
    }


@pytest.mark.parametrize("row", rows())
def test_named_tests_exist(row):
    named = re.findall(r"`([^`]+)`", row)
    assert named
    assert set(named) <= existing()
