# SPDX-License-Identifier: GPL-2.0
"""What `ksm sharing` says, beside a program that reads the page tables by itself."""

import json
import xml.etree.ElementTree

import pytest
from harness import REPO
from ksmlab import programs

GUEST = REPO / "tests/guest"


@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_it_agrees_with_the_page_tables(vm, ksm):
    command = programs.directory() / "ksm"
    words = ["/usr/bin/python3", "/mnt/share/shared.py", command, 3, 4, 2, 1]
    done = vm.run(*map(str, words), ksm=ksm, share=GUEST)
    assert done.status == 0, done.explain()
    result = json.loads(done.text)
    told, seen, counted = result["told"], result["seen"], result["counted"]
    assert (told["frames"], told["pages"]) == (seen["frames"], seen["pages"])
    assert told["frames"] == counted["shared"]
    assert told["pages"] - told["frames"] == counted["sharing"] > 1000
    assert {str(of["pid"]): of["pages"] for of in told["processes"]} == seen["processes"]
    pair = next(pair for pair in told["pairs"] if [pair["one"], pair["other"]] == result["pids"][:2])
    assert pair["common"] == seen["common"]
    assert "KSM saves" in result["lines"]
    drawn = xml.etree.ElementTree.fromstring(result["svg"])
    texts = [text.text.strip() for text in drawn.iter() if text.tag.endswith("text")]
    assert sum(f"({result['pids'][0]})" in text for text in texts) == 2
