# SPDX-License-Identifier: GPL-2.0
"""`ksm top` on a terminal, in a pipe, and without KSM."""

import pytest
from harness import limit
from ksm_command import COMMAND, told

CROWD = 10_000

# So many take minutes on a host that is slow to start processes.
CROWD_SECONDS = 900


@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_it_shows_what_ksm_counts(vm, ksm):
    result = told(vm, "watched.py", 3, 4, 2, 1, ksm=ksm)
    look, counted = result["looks"][-1], result["counted"]
    assert look["shared"] == counted["pages_shared"]
    assert look["sharing"] == counted["pages_sharing"] > 1000
    assert look["full_scans"] == counted["full_scans"]
    assert len(look["processes"]) == 4
    # All of them have pages of zeros in common, and the interpreter's memory.
    assert all(process["merged"] > 1000 for process in look["processes"][:3])
    merged = [process["merged"] for process in look["processes"]]
    assert merged == sorted(merged, reverse=True) and sum(merged) == look["shared"] + look["sharing"]
    assert result["lines"].count("ksmd") == 2 and result["lines"].count("python3") == 6


def test_on_a_terminal_it_ends_with_q_and_writes_no_name_as_it_is(vm):
    result = told(vm, "watched.py", 1, 4, 2, 1)
    assert result["status"] == 0
    assert "ksmd" in result["shown"] and "python3" in result["shown"]
    strange = next(of for of in result["looks"][0]["processes"] if of["pid"] == result["pid"])
    assert strange["name"] == ") x\\u{1b}[2J\\u{fffd}\\n"
    assert "\x1b[2J\\u{fffd}" not in result["shown"] and "\x1b" not in result["lines"]


@pytest.mark.timeout(limit(CROWD_SECONDS))
def test_it_takes_ten_thousand_processes(vm, record_property):
    result = told(vm, "crowd.py", CROWD, mem="4G", timeout=CROWD_SECONDS)
    assert len(result["top"]["processes"]) >= CROWD
    # Some of them end meanwhile.
    assert CROWD - 200 <= len(result["sharing"]["processes"]) <= CROWD + 1
    seconds = result["seconds"]
    record_property(
        f"{CROWD} processes", f"ksm top {seconds['top']:.1f} s, ksm sharing {seconds['sharing']:.1f} s"
    )


def test_without_ksm_it_says_so(vm):
    script = f"rmmod ksm_rs; ! {COMMAND} top --count 1 2>&1"
    done = vm.run("sh", "-ec", script)
    assert done.status == 0 and "modprobe ksm_rs" in done.text, done.explain()
