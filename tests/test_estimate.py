# SPDX-License-Identifier: GPL-2.0
"""What `ksm estimate` says, beside what KSM then saves."""

import json

import pytest
from harness import REPO
from ksmlab import programs

GUEST = REPO / "tests/guest"


@pytest.mark.parametrize("ksm", ["rs", "c"])
@pytest.mark.parametrize(
    "load",
    [(4, 24, 16, 8), (2, 0, 32, 32), (24, 4, 1, 0), (3, 0, 16, 0)],
    ids=["alike", "zeros", "many", "nothing-in-common"],
)
def test_the_estimate_is_what_is_saved(vm, ksm, load):
    """Processes of Python that offer all of their memory: interpreter, heap, and what they hold."""
    command = programs.directory() / "ksm"
    words = ["/usr/bin/python3", "/mnt/share/estimated.py", command, *load]
    done = vm.run(*map(str, words), ksm=ksm, share=GUEST, mem="1G")
    assert done.status == 0, done.explain()
    told = json.loads(done.text)
    estimate, saved = told["estimate"], told["saved"]
    assert saved > 500
    assert estimate["saved"] == pytest.approx(saved, rel=0.02)
    by_process = sum(process["saved"] for process in estimate["processes"])
    assert by_process == pytest.approx(estimate["saved"])
    assert estimate["zeros"] >= load[0] * load[3] * 256
