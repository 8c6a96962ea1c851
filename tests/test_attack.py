# SPDX-License-Identifier: GPL-2.0
"""What a process learns, by way of KSM, of pages that others hold (ksm-attack)."""

import json
from math import sqrt

import pytest
from harness import TIMEOUT, limit

TRIALS = {"um": 200, "x86": 50}

# By chance it is further off once in a million times.
SIGMAS = 5

# What anybody may read of the host as a whole tells of pairs that others have among themselves.
OF_THE_HOST = {"VictimsPairs"}

# An emulated CPU has no caches, and two real ones may have none in common.
TAKES_A_CACHE = {"ReadTime"}


def attack(vm, lane: str, *options: str, ksm: str = "rs", seed: str) -> dict:
    command = ("ksm-attack", "--trials", str(TRIALS[lane]), "--seed", seed, *options)
    done = vm.run(*command, lane=lane, ksm=ksm)
    assert done.status == 0, done.explain()
    return json.loads(done.text.splitlines()[-1])


def is_chance(right: int, trials: int) -> bool:
    return abs(right - trials / 2) <= SIGMAS * sqrt(trials) / 2


def told(record: dict) -> set[str]:
    """The channels that say more than chance does."""
    return {name for name, right in record["right"].items() if not is_chance(right, record["trials"])}


# All that tell something on every machine.
CHANNELS = {"Pagemap", "Smaps", "KsmStat", "WriteTime", "CowKsm", "PagesSharing"} | OF_THE_HOST


@pytest.mark.timeout(limit(TIMEOUT["x86"]))
@pytest.mark.parametrize("lane", TRIALS)
@pytest.mark.parametrize(
    "ksm, options",
    [("c", ()), ("rs", ()), ("rs", ("--domains", "7", "7"))],
    ids=["c", "rs", "one-domain"],
)
def test_within_a_domain_everything_tells(vm, lane, ksm, options, seed, record_property):
    """It is not promised otherwise: docs/security.md."""
    record = attack(vm, lane, *options, ksm=ksm, seed=seed)
    assert told(record) - TAKES_A_CACHE == CHANNELS, record
    assert record["frames"]["not_merged"] <= record["trials"] / 50
    record_property(f"attack, {lane}, {ksm}", f"every channel tells, of {record['trials']} trials")


@pytest.mark.timeout(limit(TIMEOUT["x86"]))
@pytest.mark.parametrize("lane", TRIALS)
@pytest.mark.parametrize("domains", [("1", "2"), ("private", "0"), ("0", "private")])
def test_of_another_domain_nothing_is_told(vm, lane, domains, seed, record_property):
    record = attack(vm, lane, "--domains", *domains, seed=seed)
    # Two processes of a victim that are private are so to each other, too.
    assert told(record) == (set() if domains[0] == "private" else OF_THE_HOST), record
    assert record["frames"]["not_merged"] == record["trials"]
    right = record["right"]["WriteTime"]
    record_property(f"attack, {lane}, domains {domains}", f"{right} of {record['trials']} right")


def test_hidden_counters_tell_nothing(vm, seed):
    record = attack(vm, "um", "--domains", "1", "2", "--hide-counters", seed=seed)
    assert told(record) == set(), record


@pytest.mark.parametrize("first", ["victim", "attacker"])
def test_a_fresh_frame_was_nobodys(vm, first, seed):
    record = attack(vm, "um", "--fresh-frames", "--first", first, seed=seed)
    # The allocator may return a page that one of them has given back a moment ago.
    assert record["frames"]["nobodys"] >= 0.98 * record["trials"], record


def test_without_fresh_frames_one_of_them_keeps_its_own(vm, seed):
    frames = attack(vm, "um", seed=seed)["frames"]
    assert frames["nobodys"] == 0 and frames["attackers"] > 0, frames
