# SPDX-License-Identifier: GPL-2.0
"""The benchmark of neighbours: that scans go on meanwhile, that neighbours are timed, and that ratios are right."""

import json
import os
import subprocess

import pytest

from ksmlab import neighbour_command, neighbour_results, neighbours
from ksmlab.neighbour_plan import NOBODY, SCANS
from ksmlab.neighbour_results import Sample
from ksmlab.say import Failure

PACE = 20_000

ANSWER = """\
Latency by percentile distribution:
0.000% <= 0.039 milliseconds (cumulative count 1)
50.000% <= 0.151 milliseconds (cumulative count 48122)
99.219% <= 0.479 milliseconds (cumulative count 79432)
99.902% <= 1.231 milliseconds (cumulative count 79929)
100.000% <= 2.303 milliseconds (cumulative count 80000)
"""


@pytest.mark.parametrize("ksm", ["c", "rs"])
def test_a_scan_goes_on_and_merges(vm, ksm):
    words = f"ksm-bench hold --mib 8 --seconds 3 --pace {PACE} --merging 100".split()
    done = vm.run(*words, ksm=ksm, mem="256M")
    assert done.status == 0, done.explain()
    ready, sums = done.text.splitlines()
    sums = json.loads(sums)
    assert ready == "ready"
    # How fast depends on what else runs on this machine.
    assert sums["pages_per_second"] > 0 and sums["merged_per_second"] > 0, sums


def test_nobody_scans_at_pace_0(vm):
    done = vm.run(*"ksm-bench hold --mib 8 --seconds 1 --pace 0".split(), mem="256M")
    assert done.status == 0, done.explain()
    assert json.loads(done.text.splitlines()[1])["pages_per_second"] == 0


@pytest.mark.parametrize("kind", ["chase", "stream"])
def test_a_neighbour_is_timed(kind):
    quantiles = neighbours.ours(0, kind, 2, 0.2)
    assert 0 < quantiles["p50"] <= quantiles["p99"] <= quantiles["p999"]
    assert quantiles["samples"] > 10


def test_a_busy_cpu_is_seen():
    cpu = min(os.sched_getaffinity(0))
    before = neighbour_command.busy_seconds(cpu)
    subprocess.run(["taskset", "--cpu-list", str(cpu), "timeout", "0.5", "yes"], stdout=subprocess.DEVNULL)
    assert neighbour_command.busy_seconds(cpu) > before


def test_quantiles_of_redis_are_read():
    found = neighbours.percentiles(ANSWER)
    assert found == {"p50": 151.0, "p99": 479.0, "p999": 1231.0}
    with pytest.raises(Failure):
        neighbours.percentiles("Could not connect to Redis")


def sample(time: float) -> Sample:
    quantiles = {"stream": {"p50": time, "p99": 2 * time, "p999": 3 * time}}
    return Sample(quantiles, {name: 1.0 for name in neighbour_results.SUMS})


def test_rounds_are_compared_with_themselves(tmp_path):
    # All of the second round is twice as slow: the machine was.
    samples = {NOBODY: [sample(10), sample(20), sample(10)]}
    samples["Rust, full speed"] = [sample(12), sample(24), sample(30)]
    assert neighbour_results.ratio(samples, "Rust, full speed", "stream", "p99") == 1.2
    neighbour_results.save(samples, {}, tmp_path)
    assert neighbour_results.load(tmp_path) == samples
    assert "48.0 (1.20)" in neighbour_results.table(samples)


def test_each_scan_has_its_own_name():
    names = [scan.name for scan in SCANS]
    assert len(set(names)) == len(names) and NOBODY in names
