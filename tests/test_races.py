# SPDX-License-Identifier: GPL-2.0
"""Everything that shares state with the scanner, let loose on it and on each other."""

import pytest

from harness import LANES

# Movable blocks of memory are in x86 only.
PAIRS = {"um": 12, "x86": 15}
SECONDS = {"um": 3, "x86": 8}
OPTIONS = {
    "um": {"mem": "256M"},
    # With two nodes pages migrate, and with movable memory blocks go offline.
    "x86": {"mem": "1G", "numa": 2, "cpus": 2, "append": "movablecore=512M"},
}


@pytest.mark.parametrize("lane", LANES)
def test_races(vm, lane, seed, record_property):
    command = ["ksm-races", "--seconds", str(SECONDS[lane]), "--seed", seed]
    result = vm.run(*command, lane=lane, **OPTIONS[lane])
    assert result.status == 0, result.explain()
    verdict = result.text.splitlines()[-1]
    assert verdict.startswith(f"{PAIRS[lane]} pairs, "), result.text
    record_property(f"races in the lane {lane}", verdict)
