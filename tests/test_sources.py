# SPDX-License-Identifier: GPL-2.0
"""Rules that the sources keep: some that the compiler enforces if it is asked to, and the layers."""

import re

import pytest

from ksmlab.paths import REPO
from ksmlab.sources import module_sources

# The wrappers, and what the kernel calls. Files that only declare others have nothing to deny.
UNSAFE = {"ksm_rs.rs", "madvise_hook.rs"}
UNSAFE |= {f"kernel_api/{name}.rs" for name in ("kobject", "kthread", "module_hold", "pages", "prefetch")}
UNSAFE |= {f"mm/ksm_page/{name}.rs" for name in ("ksm_folio", "share", "trace", "walk")}
UNSAFE |= {str(path.relative_to(REPO)) for path in REPO.glob("mm/*.rs")}

NAMES = [str(path.relative_to(REPO)) for path in module_sources()]
SAFE_FILES = [name for name in NAMES if name not in UNSAFE and not name.endswith("/mod.rs")]


def test_sources_are_found_in_folders():
    assert {"scan.rs", "scan/batch.rs", "mm/ksm_page/walk.rs"} <= set(NAMES)
    assert not any(name.startswith(("tests/", "scale/")) for name in NAMES)


@pytest.mark.parametrize("name", SAFE_FILES)
def test_compiler_denies_unsafe(name):
    text = (REPO / name).read_text()
    assert re.search(r"^#!\[(deny|forbid)\(unsafe_code\)\]$", text, re.M)
    assert not re.search(r"(allow|warn|expect)\(unsafe_code\)", text)
