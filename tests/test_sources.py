# SPDX-License-Identifier: GPL-2.0
"""Rules that the compiler enforces, as long as the sources ask it to."""

import re

import pytest

from ksmlab.paths import REPO

# The wrappers outside of mm/, and what the kernel calls.
UNSAFE_FILES = {"kthread.rs", "kobject.rs", "module_hold.rs", "trace.rs", "madvise_hook.rs"}
ROOTS = {"ksm_rs.rs", "mm.rs"}
SAFE_FILES = sorted({path.name for path in REPO.glob("*.rs")} - UNSAFE_FILES - ROOTS)


@pytest.mark.parametrize("name", SAFE_FILES)
def test_compiler_denies_unsafe(name):
    text = (REPO / name).read_text()
    assert re.search(r"^#!\[(deny|forbid)\(unsafe_code\)\]$", text, re.M)
    assert not re.search(r"(allow|warn|expect)\(unsafe_code\)", text)
