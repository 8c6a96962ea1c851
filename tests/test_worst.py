# SPDX-License-Identifier: GPL-2.0
"""The worst case of content-ordered trees: pages that differ at their very end."""

import json
import statistics

import pytest

from harness import TIMEOUT, limit

PAIRS = 3


def nanoseconds(vm, ksm: str) -> float:
    result = vm.run("ksm-bench", "run", "differ-4088", "--mib", "64", ksm=ksm, mem="384M")
    assert result.status == 0, result.explain()
    record = json.loads(result.text.splitlines()[-1])
    return record["measures"]["scan_ns_per_page"] * record["pages"]


@pytest.mark.alone
@pytest.mark.timeout(limit(2 * PAIRS * TIMEOUT["um"]))
def test_ksmd_takes_less_cpu_time_than_the_kernels_own(vm, record_property):
    # Interleaved, so that what changes on the machine meets both alike.
    times = [(nanoseconds(vm, "c"), nanoseconds(vm, "rs")) for _ in range(PAIRS)]
    c, rs = (statistics.median(column) for column in zip(*times))
    record_property(
        "result",
        f"worst case, CPU time of ksmd for a scan: C {c / 1e6:.0f} ms, "
        f"Rust {rs / 1e6:.0f} ms, ratio {c / rs:.1f}",
    )
    assert c / rs > 1
