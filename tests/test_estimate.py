# SPDX-License-Identifier: GPL-2.0
"""What `ksm estimate` says, beside what KSM then saves."""

import json

import pytest
from harness import TIMEOUT, limit
from ksm_command import COMMAND, told
from ksmlab import kvm_plan


@pytest.mark.parametrize("ksm", ["rs", "c"])
@pytest.mark.parametrize(
    "load",
    [(4, 24, 16, 8), (2, 0, 32, 32), (24, 4, 1, 0), (3, 0, 16, 0)],
    ids=["alike", "zeros", "many", "nothing-in-common"],
)
def test_the_estimate_is_what_is_saved(vm, ksm, load):
    """Processes of Python that offer all of their memory: interpreter, heap, and what they hold."""
    result = told(vm, "estimated.py", *load, ksm=ksm, mem="1G")
    estimate, saved = result["estimate"], result["saved"]
    assert saved > 500
    assert estimate["saved"] == pytest.approx(saved, rel=0.02)
    by_process = sum(process["saved"] for process in estimate["processes"])
    assert by_process == pytest.approx(estimate["saved"])
    assert estimate["zeros"] >= load[0] * load[3] * 256


@pytest.mark.timeout(limit(TIMEOUT[kvm_plan.LANE]))
@pytest.mark.parametrize("ksm, off", [("rs", 0.02), ("c", 0.1)])
def test_of_kvm_guests_it_is_what_is_saved(vm, ksm, off, record_property):
    """Guests that are at work: what each has for itself changes all the time.

    mm/ksm.c may not have merged all when it has merged nothing more for some scans.
    """
    guests = kvm_plan.guests("--victims", "0", "--estimate-with", str(COMMAND), "--json")
    done = vm.run(*guests, lane=kvm_plan.LANE, ksm=ksm, **kvm_plan.MACHINE)
    assert done.status == 0, done.explain()
    record = json.loads(done.text.splitlines()[-1])
    estimate, saved = record["estimate"], record["pages_sharing"]
    assert estimate == pytest.approx(saved, rel=off)
    record_property(f"KVM guests, {ksm}", f"estimated {estimate} pages saved, saved {saved}")


def test_it_needs_no_ksm(vm):
    script = f"rmmod ksm_rs; {COMMAND} --json estimate $$"
    done = vm.run("sh", "-ec", script)
    assert done.status == 0, done.explain()
    estimate = json.loads(done.text)
    assert estimate["pages"] > 10 and estimate["processes"][0]["name"] == "sh"


def test_of_many_processes_those_that_end_are_left_out(vm):
    """Two hundred processes, half of which end while all are read."""
    script = f"""
        for number in $(seq 100); do sleep 300 & done
        for number in $(seq 100); do sleep 1 & done
        {COMMAND} --json estimate --max-cpu 100
    """
    done = vm.run("sh", "-ec", script)
    assert done.status == 0, done.explain()
    estimate = json.loads(done.text)
    assert len(estimate["processes"]) >= 100
    assert estimate["pages"] > estimate["saved"] > 0


def test_a_reader_may_stop_reading(vm):
    done = vm.run("sh", "-ec", f"{COMMAND} estimate $$ | true; {COMMAND} set run=1 2>&1 | true")
    assert done.status == 0 and not done.stderr, done.explain()


@pytest.mark.parametrize("words", ["estimate 1", "sharing", "set run=1"])
def test_a_user_is_told_that_it_takes_root(vm, words):
    script = f"! setpriv --reuid 65534 --clear-groups {COMMAND} {words} 2>&1"
    done = vm.run("sh", "-ec", script)
    assert done.status == 0 and "are you root?" in done.text, done.explain()
    assert done.text.startswith("ksm: ") and len(done.text.splitlines()) == 1
