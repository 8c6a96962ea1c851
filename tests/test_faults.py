# SPDX-License-Identifier: GPL-2.0
"""Allocations that fail: one after the other in every entry, and at random in ksmd."""

import pytest

from harness import LANES, SKIPPED
from ksmlab import flavour


def run(vm, lane: str, *arguments: str, **options) -> str:
    result = vm.run("ksm-faults", *arguments, lane=lane, **options)
    if result.status == SKIPPED and flavour.usual() != flavour.DEBUG:
        pytest.skip(result.text.strip().splitlines()[-1])
    assert result.status == 0, result.explain()
    return result.text.splitlines()[-1]


@pytest.mark.parametrize("lane", LANES)
def test_each_allocation_may_fail(vm, lane, record_property):
    record_property(f"faults in the lane {lane}", run(vm, lane, mem="256M"))


# Not execve: User Mode Linux itself does not survive all of these faults there.
ALSO_ALL = ("madvise", "prctl", "fork of", "run: 2", "max_page_sharing", "insmod", "rmmod")


def test_each_allocation_of_the_kernel_may_fail(vm, record_property):
    """In the fast lane not only those of the module."""
    only = [word for entry in ALSO_ALL for word in ("--only", entry)]
    line = run(vm, "um", "--scope", "all", *only, mem="256M")
    record_property("faults of all kinds in the lane um", line)


@pytest.mark.parametrize("lane", LANES)
def test_ksmd_copes_without_memory(vm, lane, seed, record_property):
    options = {"um": {"mem": "256M"}, "x86": {"mem": "768M", "numa": 2, "cpus": 2}}
    command = ["--", "ksm-property", "--seconds", "30", "--seed", seed]
    line = run(vm, lane, *command, **options[lane])
    record_property(f"random faults in the lane {lane}", line)
