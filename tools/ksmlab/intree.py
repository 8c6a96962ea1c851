# SPDX-License-Identifier: GPL-2.0
"""The module as a part of a kernel tree: mm/ksm_rs/, built by CONFIG_KSM_RS."""

import dataclasses
import hashlib
import shutil
import subprocess
from pathlib import Path

from . import kernel, source
from .flavour import ORDINARY
from .kernel import Kernel
from .locks import locked
from .paths import REPO, in_cache
from .say import Failure
from .shell import logged
from .sources import module_sources
from .toolchain import Toolchain

PATCH = REPO / "patches/intree/0001-mm-ksm-build-ksm_rs-in-the-kernel-tree.patch"

# Only a tree with the series has it.
HOOKS = "mm/ksm_pluggable.c"

TARGET = "mm/ksm_rs"


def files() -> list[Path]:
    return [REPO / "Kbuild", *module_sources()]


def write(tree: Path) -> Path:
    """Write the module's sources, and have kbuild and Kconfig know them."""
    if not (tree / HOOKS).exists():
        raise Failure(f"{tree} has no {HOOKS}: apply patches/ first (docs/porting.md)")
    copy_sources(tree / TARGET)
    if "config KSM_RS\n" not in (tree / "mm/Kconfig").read_text():
        apply(tree)
    return tree / TARGET


def copy_sources(target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for file in files():
        copy = target / file.relative_to(REPO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def apply(tree: Path) -> None:
    command = ["patch", "-p1", "--force", "-d", tree, "-i", PATCH]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failure(f"mm/Kconfig and mm/Makefile of {tree} differ too much:\n{done.stdout}")


def kernel_with_module(lane: str, tools: Toolchain) -> Kernel:
    """The usual kernel of a lane, with the module as a part of it; not built yet."""
    usual = kernel.of(lane, "rs", ORDINARY, tools)
    options = usual.options + "CONFIG_KSM_RS=m\n"
    tree = tree_with_module(usual.tree)
    return dataclasses.replace(usual, tree=tree, options=options, variant="intree")


def tree_with_module(patched: Path) -> Path:
    """A copy of a patched tree, whose files it shares but for those that differ."""
    contents = b"".join(file.read_bytes() for file in [PATCH, *files()])
    key = hashlib.sha256(patched.name.encode() + contents).hexdigest()[:12]
    tree = in_cache("src", f"{source.find().identity}-{key}")
    with locked("src"):
        if not tree.exists():
            partial = tree.with_name(f"{tree.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            # patch writes a new file in place of the one that it changes.
            logged("patch", "cp", "-al", patched, partial)
            write(partial)
            partial.rename(tree)
    return tree
