# SPDX-License-Identifier: GPL-2.0
"""What `ksm why` says, beside the kernel's own sums."""

import pytest
from ksm_command import told


@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_it_sums_to_all_memory_of_the_process(vm, ksm):
    result = told(vm, "explained.py", 3, 4, 2, 1, ksm=ksm)
    reasons = [states.pop("reasons") for states in result["told"]]
    for states, counted in zip(result["told"], result["counted"]):
        # The kernel does not count its zero page as memory of a process.
        assert sum(states.values()) - states["zero_page"] == counted["Rss"] + counted["Swap"]
        assert states["merged"] == counted["KSM"]
    advised, other = result["told"]
    # 2 MiB that it alone has, 5 MiB that others have as well, and its interpreter.
    assert advised["not_merged"] >= 512 and advised["merged"] >= 1280 and advised["never"] > 0
    assert advised["not_advised"] < 20
    assert other["merged"] == other["not_merged"] == 0 < other["not_advised"]
    assert "in all" in result["lines"]
    # The kernel's own KSM does not tell, nor is there anything to tell of a process without advice.
    of_advised, of_other = reasons
    assert of_other is None and (of_advised is None) == (ksm == "c")
    if of_advised:
        not_merged = advised["not_merged"] + advised["not_merged_huge"]
        assert not_merged * 0.9 <= sum(of_advised.values()) <= not_merged * 1.05
        assert of_advised["no_equal"] + of_advised["passed_over"] >= 512
        assert "no equal for long" in result["lines"]
