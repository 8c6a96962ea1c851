# SPDX-License-Identifier: GPL-2.0
"""The kernel's source: fetched once, then patched for each state of patches/."""

import functools
import hashlib
import lzma
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import apt, prune, reuse
from .flavour import ORDINARY
from .locks import locked
from .paths import REPO, in_cache
from .say import Failure, step
from .shell import logged

# Debian's package of the source for which the series is made, and the suite that has it.
PACKAGE, SUITE = "linux-source-7.3", "trixie-backports"

# Its package of the configurations of its own kernels.
CONFIGS = "linux-config-7.3"

# What a kernel is built from, which building does not change.
SOURCES = re.compile(r"\.[chS]$|\.rs$|/(Kconfig|Makefile)[^/]*$")


@dataclass(frozen=True)
class Source:
    """An unpatched source tree, and what tells it from others."""

    tree: Path
    identity: str


@functools.cache
def find() -> Source:
    """The tree or tarball that the user gives, or else Debian's package."""
    given = os.environ.get("KSM_RS_KERNEL_SOURCE")
    if not given:
        return of_debian()
    path = Path(given).resolve()
    if path.is_dir():
        return Source(path, identity(path, newest_change(path)))
    if path.is_file():
        return of_tarball(path)
    raise Failure(f"KSM_RS_KERNEL_SOURCE: there is no {path}")


def kernel_version(tree: Path) -> str:
    text = (tree / "Makefile").read_text()
    parts = [
        re.search(rf"^{key} *= *(\S*)", text, re.M)
        for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL", "EXTRAVERSION")
    ]
    if not all(parts):
        raise Failure(f"{tree} is not a kernel source tree")
    version, patchlevel, sublevel, extra = (part[1] for part in parts)
    return f"{version}.{patchlevel}.{sublevel}{extra}"


def newest_change(tree: Path) -> Path:
    """The file that was changed last, of those that a kernel is built from."""
    found = (os.path.join(at, name) for at, _, names in os.walk(tree) for name in names)
    sources = filter(os.path.exists, filter(SOURCES.search, found))
    return Path(max(sources, key=os.path.getmtime, default=tree))


def identity(tree: Path, origin: Path) -> str:
    """Of a source that the user gave: its version, where it is, and its date."""
    state = f"{origin} {origin.stat().st_mtime_ns}"
    return f"{kernel_version(tree)}-{hashlib.sha256(state.encode()).hexdigest()[:8]}"


def of_tarball(path: Path) -> Source:
    name = f"given-{hashlib.sha256(f'{path} {path.stat().st_mtime_ns}'.encode()).hexdigest()[:12]}"
    tree = in_cache("source", name)
    with locked("source"):
        if not tree.exists():
            unpack(path, tree)
    return Source(tree, identity(tree, path))


def of_debian() -> Source:
    """The newest one in the cache; fetched if there is none."""
    with locked("source"):
        cached = sorted(in_cache("source", "x").parent.glob("debian-*"), key=version_key)
        tree = cached[-1] if cached else fetch()
    return Source(tree, tree.name)


def version_key(tree: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", tree.name)]


def fetch() -> Path:
    suite = apt.OtherSuite(SUITE)
    suite.update()
    version = suite.newest(PACKAGE)
    if not version:
        raise Failure(f"{SUITE} has no {PACKAGE}; give its source in KSM_RS_KERNEL_SOURCE")
    tree = in_cache("source", f"debian-{version}")
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        with step(f"fetching {PACKAGE} (160 MB)"):
            archive = suite.download(PACKAGE, Path(scratch))
            apt.unpack(archive, Path(scratch))
        unpack(next(Path(scratch).glob("usr/src/linux-source-*.tar.*")), tree)
    return tree


def debian_options(flavour: str) -> str:
    """The configuration of Debian's kernel of that flavour, such as cloud-amd64."""
    directory = in_cache("source", CONFIGS)
    with locked("source"):
        if not directory.exists():
            fetch_options(directory)
    name = f"config.amd64_none_{flavour}.xz"
    found = list(directory.glob(f"usr/src/*/{name}"))
    if not found:
        known = sorted(path.name for path in directory.glob("usr/src/*/config.*.xz"))
        raise Failure(f"Debian's kernels have no {name}; there are {', '.join(known)}")
    return lzma.decompress(found[0].read_bytes()).decode()


def fetch_options(directory: Path) -> None:
    suite = apt.OtherSuite(SUITE)
    suite.update()
    with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
        with step(f"fetching {CONFIGS}"):
            archive = suite.download(CONFIGS, Path(scratch))
        partial = Path(scratch) / "unpacked"
        apt.unpack(archive, partial)
        partial.rename(directory)


def unpack(tarball: Path, tree: Path) -> None:
    """Unpack to a scratch directory first: what has its final name is whole."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as scratch:
        with step(f"unpacking {tarball.name}"):
            logged("unpack", "tar", "-C", scratch, "-xf", tarball)
        top = list(Path(scratch).iterdir())
        if len(top) != 1:
            raise Failure(f"{tarball} does not hold exactly one directory")
        top[0].rename(tree)


def series(flavour: str, repo: Path = REPO) -> list[Path]:
    """The patches, in the order in which they apply; not all are for ordinary kernels."""
    patches = repo / "patches"
    directories = [patches] if flavour == ORDINARY else [patches, patches / "debug"]
    return [
        directory / name
        for directory in directories
        for name in (directory / "series").read_text().split()
    ]


def identity_of(patches: list[Path]) -> str:
    contents = b"".join(patch.read_bytes() for patch in patches)
    return hashlib.sha256(contents).hexdigest()[:12]


def patched(source: Source, flavour: str = ORDINARY, repo: Path = REPO) -> Path:
    """A copy of the source with the flavour's series applied."""
    patches = series(flavour, repo)
    tree = in_cache("src", f"{source.identity}-{identity_of(patches)}")
    with locked("src"):
        if not tree.exists():
            patch_copy(source.tree, tree, patches)
        prune.used_now(tree / prune.SOURCE_MARK)
    return tree


def patch_copy(pristine: Path, tree: Path, patches: list[Path]) -> None:
    partial = tree.with_name(f"{tree.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with step(f"copying the kernel's source and applying {len(patches)} patches"):
        logged("patch", "cp", "-a", pristine, partial)
        for patch in patches:
            logged("patch", "patch", "-p1", "--fuzz=0", "--force", "-d", partial, "-i", patch)
        reuse.record_patched_files(partial, patches)
        partial.rename(tree)
