# SPDX-License-Identifier: GPL-2.0
"""Drops the kernels of earlier patches: each takes half a gigabyte, its source two."""

import os
import shutil
import time
from pathlib import Path

from .say import say

# Builds of each kind that stay, those used last: as many branches can be worked on in turn.
KEPT = 3

# Lists what patches have touched; its date is that of the last use, as that of a build's mark.
SOURCE_MARK = ".ksm_rs-patched"

# A source that was wanted since then may be one that somebody is about to build.
DAY_SECONDS = 24 * 60 * 60


def used_now(mark: Path) -> None:
    """Note the date: the mark of a finished build, or source, tells its last use."""
    os.utime(mark)


def last_use(build: Path) -> float:
    return (build / ".complete").stat().st_mtime


def drop_builds(directory: Path, name: str) -> None:
    """All finished builds called `name` but the last used ones."""
    finished = [mark.parent for mark in directory.glob(f"{name}-*/.complete")]
    alike = [build for build in finished if build.name.rpartition("-")[0] == name]
    for build in sorted(alike, key=last_use)[:-KEPT]:
        say(f"dropping the old build {build.name}")
        drop(build)


def drop_commits(directory: Path) -> None:
    """All trees of other commits but the last used ones, with the modules that were built of them."""
    trees = [tree for tree in directory.iterdir() if not tree.name.startswith(".")]
    for tree in sorted(trees, key=lambda tree: tree.stat().st_mtime)[:-KEPT]:
        say(f"dropping the tree of the commit {tree.name}")
        drop(tree)


def drop_sources(directory: Path, builds: Path) -> None:
    """All patched sources that no build is of, unless somebody has just wanted them."""
    wanted = {link.resolve() for link in builds.glob("*/source")}
    for mark in directory.glob(f"*/{SOURCE_MARK}"):
        if mark.parent not in wanted and time.time() - mark.stat().st_mtime > DAY_SECONDS:
            say(f"dropping the old source {mark.parent.name}")
            drop(mark.parent)


def drop(tree: Path) -> None:
    """What is only half removed must not look like a finished tree, so it goes by another name."""
    dropped = tree.with_name(f".dropped-{tree.name}")
    shutil.rmtree(dropped, ignore_errors=True)
    tree.rename(dropped)
    shutil.rmtree(dropped)
