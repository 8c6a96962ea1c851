# SPDX-License-Identifier: GPL-2.0
"""Rules that the sources keep: some that the compiler enforces if it is asked to, and the layers."""

import re
from graphlib import CycleError, TopologicalSorter

import layers
import pytest

from ksmlab.paths import REPO
from ksmlab.sources import module_sources

# The wrappers, and what the kernel calls. Files that only declare others have nothing to deny.
UNSAFE = {"ksm_rs.rs", "madvise_hook.rs"}
UNSAFE |= {f"kernel_api/{name}.rs" for name in ("kobject", "kthread", "module_hold", "pages", "prefetch")}
UNSAFE |= {f"mm/ksm_page/{name}.rs" for name in ("fresh_page", "ksm_folio", "share", "trace", "walk")}
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


# From the bottom up. A file imports from its own layer and from those below.
LAYERS = [
    ["testing"],
    ["kernel_api"],
    ["containers"],
    ["stable_tree", "unstable_tree"],
    ["page"],
    ["mm"],
    ["mm::ksm_page"],
    ["rmap_item", "records"],
    ["policy"],
    ["following"],
    ["merging"],
    ["scan"],
    ["ksmd"],
    ["madvise_hook", "sysfs", "inspection"],
    ["ksm_rs"],
]

# Compiled for KUnit alone, whose modules may use all that they test.
ONLY_KUNIT = {"testing::fake_page"}


def layer_of(module: str) -> int:
    """The number of a module's layer: that of the longest name that it begins with."""
    names = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    while module not in names:
        module = module.rpartition("::")[0]
    return names[module]


def test_imports_are_seen():
    graph = layers.graph()
    assert {"records", "unstable_tree"} <= graph["records::waiting"]  # super::, crate::
    assert {"scan::batch", "scan::pace"} <= graph["scan"]  # below it
    assert "mm::address_space" in graph["merging::lookup"]  # in nested braces


def test_no_file_imports_in_a_circle():
    try:
        order = list(TopologicalSorter(layers.graph()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert len(order) == len(module_sources())


def test_files_import_from_their_own_layer_or_from_below():
    wrong = [
        f"{module} imports {other}"
        for module, others in layers.graph().items()
        for other in others
        if layer_of(other) > layer_of(module) and module not in ONLY_KUNIT
    ]
    assert not wrong
