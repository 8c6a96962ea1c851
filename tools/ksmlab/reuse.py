# SPDX-License-Identifier: GPL-2.0
"""Starts a kernel build from an earlier one, so that only what differs is built.

The two may differ in configuration and in patches, not in tools and not in the
source that the patches apply to.  kbuild goes by commands and by the dates of
files.  The commands hold the paths of the source tree and, for the tools that
all objects depend on, of the build, so these are replaced; and the dates of
patched files are set to tell what has changed since the earlier build.
"""

import filecmp
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from .prune import SOURCE_MARK, last_use
from .say import step
from .shell import logged

TOUCHED = re.compile(r"^\+\+\+ b/(\S+)", re.M)


def best(
    candidates: list[Path], tree: Path, tools: str, likeness: Callable[[Path], tuple]
) -> Path | None:
    """The finished build to start from: the one most alike, of those the one whose source differs least, and of
    those the one used last.
    """
    usable = [build for build in candidates if is_usable(build, tree, tools)]

    def suits(build: Path) -> tuple:
        return likeness(build), -len(differing((build / "source").resolve(), tree)), last_use(build)

    return max(usable, key=suits, default=None)


def is_usable(build: Path, tree: Path, tools: str) -> bool:
    """Finished, with the same tools, from the same source but for patches."""
    complete = build / ".complete"
    if not complete.exists() or complete.read_text() != tools:
        return False
    earlier = (build / "source").resolve()
    return earlier.exists() and pristine(earlier) == pristine(tree)


def pristine(tree: Path) -> str:
    return tree.name.rpartition("-")[0]


def start(build: Path, earlier: Path, tree: Path) -> None:
    """Make `build` a copy of `earlier` that compiles from `tree`."""
    partial = build.with_name(f"{build.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with step(f"starting from the build {earlier.name}"):
        not_copied = ("--exclude=/ksm_rs-*", "--exclude=/.complete")
        logged("reuse", "rsync", "-a", *not_copied, f"{earlier}/", partial)
        old = (earlier / "source").resolve()
        replace_paths(partial, {earlier: build, old: tree})
        if old != tree:
            (partial / "source").unlink()
            (partial / "source").symlink_to(tree)
            date_patched_files(old, tree, (earlier / ".complete").stat().st_mtime)
        partial.rename(build)


def replace_paths(build: Path, paths: dict[Path, Path]) -> None:
    """In every command that kbuild has recorded."""
    for path in build.rglob(".*.cmd"):
        text = before = path.read_text()
        for old, new in paths.items():
            text = text.replace(str(old), str(new))
        if text != before:
            path.write_text(text)


def date_patched_files(old: Path, tree: Path, built: float) -> None:
    """A patched file is newer than what was `built` if it differs from the earlier tree's, else as old.

    One that is newer already keeps its date: others may have been built from this tree since it has that.
    """
    changed = differing(old, tree)
    for name in patched_files(old) | patched_files(tree):
        now = tree / name
        if not now.exists():
            continue
        separate(now)
        if name not in changed:
            dates = (old / name).stat()
            os.utime(now, ns=(dates.st_atime_ns, dates.st_mtime_ns))
        elif now.stat().st_mtime <= built:
            os.utime(now)


def differing(old: Path, tree: Path) -> set[str]:
    """The patched files that are not the same in both trees."""
    return {
        name
        for name in patched_files(old) | patched_files(tree)
        if not are_equal(old / name, tree / name)
    }


def are_equal(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()):
        return one.exists() == other.exists()
    return filecmp.cmp(one, other, shallow=False)


def separate(file: Path) -> None:
    """Gives a file an inode of its own: with a date, another tree would get it as well, and be built anew."""
    if file.stat().st_nlink > 1:
        copy = file.with_name(f"{file.name}.separate")
        shutil.copy2(file, copy)
        copy.rename(file)


def patched_files(tree: Path) -> set[str]:
    """What the patches applied to `tree` have touched."""
    return set((tree / SOURCE_MARK).read_text().split())


def record_patched_files(tree: Path, patches: list[Path]) -> None:
    names = {name for patch in patches for name in TOUCHED.findall(patch.read_text())}
    (tree / SOURCE_MARK).write_text("\n".join(sorted(names)) + "\n")
