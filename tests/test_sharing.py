# SPDX-License-Identifier: GPL-2.0
"""What `ksm sharing` says, beside a program that reads the page tables by itself."""

import xml.etree.ElementTree

import pytest
from ksm_command import told


@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_it_agrees_with_the_page_tables(vm, ksm):
    result = told(vm, "shared.py", 3, 4, 2, 1, ksm=ksm)
    shared, seen, counted = result["told"], result["seen"], result["counted"]
    assert (shared["frames"], shared["pages"]) == (seen["frames"], seen["pages"])
    assert shared["frames"] == counted["shared"]
    assert shared["pages"] - shared["frames"] == counted["sharing"] > 1000
    assert {str(of["pid"]): of["pages"] for of in shared["processes"]} == seen["processes"]
    pair = next(pair for pair in shared["pairs"] if [pair["one"], pair["other"]] == result["pids"][:2])
    assert pair["common"] == seen["common"]
    assert "KSM saves" in result["lines"]
    drawn = xml.etree.ElementTree.fromstring(result["svg"])
    texts = [text.text.strip() for text in drawn.iter() if text.tag.endswith("text")]
    assert sum(f"({result['pids'][0]})" in text for text in texts) == 2
