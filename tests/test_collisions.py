# SPDX-License-Identifier: GPL-2.0
"""Checksums of so few bits that different pages share them: nothing may rest on their differing."""

import pytest

from harness import LANES, limit
from ksmlab import flavour

FILE = "/sys/kernel/debug/ksm_rs/checksum_bits"

# With the second, half of all contents share a checksum.
BITS = (8, 1)

CASES = (
    "merge-mappings merge-processes merge-mixed contents-one-bit contents-ends contents-zero "
    "sharing-limit sharing-limit-exit sharing-limit-fork sharing-limit-prune zero-pages "
    "attempt-changed attempt-parted attempt-gone smart-scan-merges"
).split()

OPTIONS = {"um": {"mem": "256M"}, "x86": {"mem": "768M", "numa": 2, "cpus": 2}}

# Seconds for all of the cases.
TIMEOUT = 600

pytestmark = pytest.mark.skipif(
    flavour.usual() != flavour.DEBUG, reason="only a kernel with fault injection has the file"
)


def run_with(vm, bits: int, *command: str, **options):
    script = f'echo {bits} > {FILE} && exec "$@"'
    result = vm.run("sh", "-c", script, "sh", *command, **options)
    assert result.status == 0, result.explain()
    return result.text.splitlines()[-1]


@pytest.mark.timeout(limit(TIMEOUT))
@pytest.mark.parametrize("bits", BITS)
def test_cases_with_collisions(vm, bits):
    script = 'for case; do ksm-case "$case" || exit 1; done'
    run_with(vm, bits, "sh", "-c", script, "sh", *CASES, **OPTIONS["um"], timeout=TIMEOUT)


@pytest.mark.parametrize("lane", LANES)
def test_random_sequences_with_collisions(vm, lane, seed, record_property):
    command = ["ksm-property", "--seconds", "20", "--seed", seed]
    line = run_with(vm, 8, *command, lane=lane, **OPTIONS[lane])
    record_property(f"property tests with collisions in the lane {lane}", line)
