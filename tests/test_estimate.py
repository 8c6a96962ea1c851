# SPDX-License-Identifier: GPL-2.0
"""What `ksm estimate` says, beside what KSM then saves."""

import pytest
from ksm_command import told


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
