# SPDX-License-Identifier: GPL-2.0
"""Random sequences of what can happen to memory, against a model of what every byte must be."""

import pytest

from harness import LANES
from ksmlab import regressions

SECONDS = {"um": 20, "x86": 40}
OPTIONS = {"um": {"mem": "256M"}, "x86": {"mem": "768M", "numa": 2, "cpus": 2}}


@pytest.mark.parametrize("lane", LANES)
def test_random_sequences(vm, lane, seed, record_property):
    share = vm.directory / "regressions"
    regressions.copy_to(share)
    command = ["ksm-property", "--regressions", "/mnt/share", "--seconds", str(SECONDS[lane])]
    result = vm.run(*command, "--seed", seed, lane=lane, share=share, **OPTIONS[lane])
    regressions.keep_new(share, lane)
    assert result.status == 0, result.explain()
    record_property(f"property tests in the lane {lane}", result.text.splitlines()[-1])
