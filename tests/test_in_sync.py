# SPDX-License-Identifier: GPL-2.0
"""A sample of all tests while MMU notifiers tell the module of changes (`in_sync=1`).

The whole of them: KSM_RS_PARAMETERS=in_sync=1 make test
"""

import pytest

import test_property as sequences
import test_races as races
from harness import LANES
from test_cases import Batch, Machine

PARAMETERS = "in_sync=1"

# Seconds of random sequences, and of each pair of racers.
SEQUENCES = {"um": 10, "x86": 20}
RACES = {"um": 2, "x86": 3}

# What changes mappings, ends, or holds on to pages, and what the scan does with all of it.
SAMPLE = {
    "um": (
        "merge-mappings",
        "merge-volatile",
        "unmerge-run2",
        "fork-while-scanning",
        "exec-merged",
        "munmap-orphans",
        "mremap-move",
        "dontneed-merged",
        "prctl-fork",
        "swap-first-ends",
        "domains-change",
        "ended-turns-away",
    ),
    "x86": (
        "merge-processes",
        "move-pages",
        "thp-merge",
        "thp-zero-pages",
        "large-folios",
        "uffd-missing",
        "direct-io",
        "oom-kill",
    ),
}


@pytest.mark.parametrize("lane", LANES)
def test_cases(tmp_path, lane):
    options = {"um": {"mem": "512M"}, "x86": {"mem": "1G", "numa": 2, "cpus": 2}}[lane]
    machine = Machine(lane, "rs", tuple({**options, "parameters": PARAMETERS}.items()))
    run = Batch(machine, SAMPLE[lane]).run(tmp_path)
    failed = [name for name in SAMPLE[lane] if run.status(name) != 0]
    texts = "\n".join(run.text(name) for name in failed)
    assert (run.vm.status, failed) == (0, []), f"{texts}\n{run.vm.explain()}"


@pytest.mark.parametrize("lane", LANES)
def test_random_sequences(vm, lane, seed):
    command = ["ksm-property", "--seconds", str(SEQUENCES[lane]), "--seed", seed]
    options = {**sequences.OPTIONS[lane], "parameters": PARAMETERS}
    result = vm.run(*command, lane=lane, **options)
    assert result.status == 0, result.explain()


@pytest.mark.parametrize("lane", LANES)
def test_races(vm, lane, seed):
    command = ["ksm-races", "--seconds", str(RACES[lane]), "--seed", seed]
    result = vm.run(*command, lane=lane, **races.OPTIONS[lane], parameters=PARAMETERS)
    assert result.status == 0, result.explain()
    assert result.text.splitlines()[-1].startswith(f"{races.PAIRS[lane]} pairs, ")
