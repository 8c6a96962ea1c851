# SPDX-License-Identifier: GPL-2.0
"""That a debug kernel sees mistakes, and that a run with one does not count.

The kernel's own test modules make them.
"""

from pathlib import Path

import pytest

from harness import LANES, Result
from ksmlab import flavour, kernel, setup

VM_FAILED = 125

LKDTM = "drivers/misc/lkdtm/lkdtm.ko"
KMEMLEAK_TEST = "samples/kmemleak/kmemleak-test.ko"

in_each_lane = pytest.mark.parametrize("lane", LANES)


def module(lane: str, path: str) -> Path:
    """A module of the debug kernel."""
    return kernel.of(lane, "rs", flavour.DEBUG, setup.tools()).build / path


def fails(vm, lane: str, script: str, report: str) -> Result:
    result = vm.run("sh", "-c", script, lane=lane)
    assert result.status == VM_FAILED, result.explain()
    assert report in result.stderr, result.explain()
    return result


@in_each_lane
@pytest.mark.parametrize(
    ("mistake", "report"),
    [
        ("READ_AFTER_FREE", "BUG: KASAN: slab-use-after-free"),
        ("READ_BUDDY_AFTER_FREE", "BUG: KASAN: use-after-free"),
        ("SLAB_LINEAR_OVERFLOW", "BUG: KASAN: slab-out-of-bounds"),
        ("ARRAY_BOUNDS", "UBSAN: array-index-out-of-bounds"),
        ("CORRUPT_LIST_ADD", "list_add corruption"),
    ],
)
def test_mistake_is_reported(vm, lane, mistake, report):
    provoke = f"echo {mistake} > /sys/kernel/debug/provoke-crash/DIRECT"
    fails(vm, lane, f"insmod {module(lane, LKDTM)} && {provoke}", report)


# User Mode Linux has no kprobes.
@pytest.mark.parametrize("lane", ["x86"])
def test_sleep_in_an_interrupt_is_reported(vm, lane):
    # Asks in an interrupt for memory for which it may have to wait.
    options = "cpoint_name=INT_HW_IRQ_EN cpoint_type=SLAB_INIT_ON_ALLOC cpoint_count=1"
    script = f"insmod {module(lane, LKDTM)} {options} && sleep 1 && rmmod lkdtm"
    # lockdep, too, has something to say, and first.
    result = fails(vm, lane, script, "inconsistent lock state")
    assert "BUG: sleeping function called from invalid context" in result.log


@in_each_lane
def test_lost_memory_is_reported(vm, lane):
    fails(vm, lane, f"insmod {module(lane, KMEMLEAK_TEST)}", "kmemleak found")


@in_each_lane
def test_lockdep_that_is_off_is_reported(vm, lane):
    script = "sed 's/debug_locks:.*1/debug_locks: 0/' /proc/lockdep_stats > /tmp/off"
    hide = "mount --bind /tmp/off /proc/lockdep_stats"
    fails(vm, lane, f"{script} && {hide}", "lockdep has switched itself off")


@in_each_lane
def test_kmemleak_that_is_off_is_reported(vm, lane):
    script = "echo off > /sys/kernel/debug/kmemleak"
    fails(vm, lane, script, "kmemleak has switched itself off")


@in_each_lane
def test_module_that_leaves_nothing_is_not_reported(vm, lane):
    result = vm.run("ksm-case", "merge-mappings", lane=lane)
    assert result.status == 0, result.explain()
