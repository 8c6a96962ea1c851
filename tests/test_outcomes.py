# SPDX-License-Identifier: GPL-2.0
"""Bad input, and some good one: the module answers as the kernel's own KSM does."""

from itertools import zip_longest

import pytest

from harness import LANES, TIMEOUT, limit

# What the table must have, lest two empty tables are equal.
LEAST_ROWS = 2000


def table(vm, lane: str, ksm: str) -> list[str]:
    result = vm.run("ksm-outcomes", lane=lane, ksm=ksm)
    assert result.status == 0, result.explain()
    return result.text.splitlines()


@pytest.mark.timeout(limit(2 * TIMEOUT["x86"]))
@pytest.mark.parametrize("lane", LANES)
def test_same_outcomes_as_mainline(vm, lane, record_property):
    c, rs = (table(vm, lane, ksm) for ksm in ("c", "rs"))
    different = [f"c:  {left}\nrs: {right}" for left, right in zip_longest(c, rs) if left != right]
    assert not different, "\n".join(different)
    assert len(c) >= LEAST_ROWS
    refused = sum("EINVAL" in row for row in c)
    record_property(f"outcomes in the lane {lane}", f"{len(c)} alike, {refused} of them EINVAL")
