# SPDX-License-Identifier: GPL-2.0
"""Rules that the compiler enforces, as long as the sources ask it to."""

import re

import pytest

from ksmlab.paths import REPO

SAFE_FILES = ("rmap_item.rs", "stable_tree.rs", "unstable_tree.rs", "scan.rs", "sysfs.rs")


@pytest.mark.parametrize("name", SAFE_FILES)
def test_compiler_denies_unsafe(name):
    text = (REPO / name).read_text()
    assert re.search(r"^#!\[(deny|forbid)\(unsafe_code\)\]$", text, re.M)
    assert not re.search(r"(allow|warn|expect)\(unsafe_code\)", text)
