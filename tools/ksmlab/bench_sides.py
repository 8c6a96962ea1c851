# SPDX-License-Identifier: GPL-2.0
"""The two sides of a comparison: the module of the work tree, and the kernel's own KSM or
the module of another commit."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import kernel, prune, source
from .bench_results import BASE, C, OURS
from .flavour import ORDINARY
from .kernel import Kernel
from .locks import locked
from .machine import Images
from .paths import REPO, in_cache
from .say import Failure
from .shell import logged, output
from .toolchain import Toolchain

# Digits of a commit's name.
DIGITS = 12

# What a module and its kernel are built from.
NEEDED = ("Kbuild", "patches/series", "configs")


@dataclass(frozen=True)
class Side:
    """A kernel, and the sources of the module that is its KSM, if one is."""

    kernel: Kernel
    repo: Path | None

    def images(self) -> Images:
        """The kernel and the module, built."""
        kernel.ensure(self.kernel)
        module = kernel.module(self.kernel, self.repo) if self.repo else None
        return Images(self.kernel.image, module, self.kernel.options)


Sides = dict[str, Side]


def with_c(lane: str, tools: Toolchain) -> Sides:
    c = Side(kernel.of(lane, "c", ORDINARY, tools), None)
    return {C: c, OURS: with_module(lane, tools, REPO)}


def with_base(lane: str, tools: Toolchain, commit: str) -> Sides:
    """The kernels are one and the same, unless patches or options differ."""
    base = with_module(lane, tools, sources_of(commit))
    return {BASE: base, OURS: with_module(lane, tools, REPO)}


def with_module(lane: str, tools: Toolchain, repo: Path) -> Side:
    return Side(kernel.of(lane, "rs", ORDINARY, tools, repo), repo)


def commit_of(name: str) -> str:
    """The commit that a name, a tag or a hash stands for."""
    wanted = f"{name}^{{commit}}"
    found = output("git", "-C", REPO, "rev-parse", "--verify", f"--short={DIGITS}", wanted)
    if not found:
        raise Failure(f"git knows no commit {name!r} in {REPO}")
    return found.strip()


def sources_of(commit: str) -> Path:
    """The whole tree of the commit, in the cache."""
    tree = in_cache("base", commit)
    with locked("base"):
        if not tree.exists():
            take_out(commit, tree)
        prune.used_now(tree)
        prune.drop_commits(tree.parent)
    missing = [name for name in NEEDED if not (tree / name).exists()]
    if missing:
        raise Failure(f"the commit {commit} has no module and kernel: {missing[0]} is missing")
    return tree


def take_out(commit: str, tree: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        archive = Path(scratch) / f"{commit}.tar"
        options = ("--prefix=ksm_rs/", f"--output={archive}")
        logged("base", "git", "-C", REPO, "archive", *options, commit)
        source.unpack(archive, tree)
