# SPDX-License-Identifier: GPL-2.0
"""Kernel builds, each in a directory named after all that went into it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from . import config, prune, qemu, reuse, source, uml
from .flavour import ALL, ORDINARY
from .locks import locked
from .paths import REPO, in_cache
from .say import step
from .shell import logged, watched
from .toolchain import Toolchain

ARCH = {"um": "um", "x86": "x86_64"}
TARGETS = {"um": ["linux", "modules"], "x86": ["bzImage", "modules"]}
IMAGE = {"um": uml.image, "x86": qemu.image}

# In the build directory: the options that a kernel began with, if there were any.
BASE = "base.config"


@dataclass(frozen=True)
class Kernel:
    """One kernel to build, described once: files may change during a build."""

    lane: str
    ksm: str
    flavour: str
    tree: Path
    tools: Toolchain
    tools_identity: str
    options: str
    # Names what else makes it unlike the usual kernel of its flavour.
    variant: str = ""
    # Options to begin with, as far as the tools allow; without any, all options are off.
    base: str = ""

    @property
    def name(self) -> str:
        parts = filter(None, (self.lane, self.ksm, self.flavour, self.variant))
        return "-".join(part for part in parts if part != ORDINARY)

    @property
    def build(self) -> Path:
        parts = (self.tree.name, self.base + self.options, self.tools_identity)
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
        return in_cache("build", f"{self.name}-{key}")

    @property
    def image(self) -> Path:
        return IMAGE[self.lane](self.build)

    @property
    def lockup(self) -> Path:
        """A module of the kernel that holds locks for as long as it is told."""
        return self.build / "lib/test_lockup.ko"

    @property
    def complete(self) -> Path:
        """Exists once the build has been finished; its date is that of the last use."""
        return self.build / ".complete"

    def variables(self) -> list[str]:
        """The variables that make needs for this kernel."""
        return [f"ARCH={ARCH[self.lane]}", *self.tools.make_arguments()]

    def make(self, *words: str | Path) -> list[str]:
        """A make command line that builds with this kernel's tools."""
        return ["make", f"-j{os.cpu_count()}", *self.variables(), *map(str, words)]


def of(lane: str, ksm: str, flavour: str, tools: Toolchain, repo: Path = REPO) -> Kernel:
    """The kernel that the patches and the options in `repo` make."""
    options = config.merged(lane, ksm, flavour, repo)
    tree = source.patched(source.find(), flavour, repo)
    return Kernel(lane, ksm, flavour, tree, tools, tools.identity(), options)


def ensure(kernel: Kernel) -> None:
    """Build the kernel unless the cache has it."""
    if kernel.complete.exists():
        prune.used_now(kernel.complete)
        return
    with locked(f"build-{kernel.lane}{'-with-base' if kernel.base else ''}"):
        if not kernel.complete.exists():
            start_from_earlier(kernel)
            build(kernel)
            drop_earlier(kernel)


def drop_earlier(kernel: Kernel) -> None:
    """Keep the cache from filling the disk."""
    builds = kernel.build.parent
    prune.drop_builds(builds, kernel.name)
    with locked("src"):
        prune.drop_sources(kernel.tree.parent, builds)


def start_from_earlier(kernel: Kernel) -> None:
    """Begin with an earlier build of the lane: nearly all objects are the same."""
    if kernel.build.exists():
        return
    builds = kernel.build.parent.glob(f"{kernel.lane}-*")
    earlier = reuse.best(
        [build for build in builds if (build / BASE).exists() == bool(kernel.base)],
        kernel.tree,
        kernel.tools_identity,
        likeness=lambda build: likeness(kernel, build),
    )
    if earlier:
        reuse.start(kernel.build, earlier, kernel.tree)


def likeness(kernel: Kernel, build: Path) -> tuple[bool, bool]:
    """How much a build has in common with a kernel: the flavour touches every object."""
    _, ksm, *rest = build.name.split("-")[:-1]
    flavour = next((part for part in rest if part in ALL), ORDINARY)
    return flavour == kernel.flavour, ksm == kernel.ksm


def build(kernel: Kernel) -> None:
    kernel.build.mkdir(exist_ok=True)
    environment = kernel.tools.environment()
    expected = "an hour or two on two CPUs" if kernel.base else "minutes"
    with step(f"building the kernel {kernel.name} ({expected})"):
        configure(kernel, environment)
        command = kernel.make("-C", kernel.tree, f"O={kernel.build}", *TARGETS[kernel.lane])
        watched(
            f"build-{kernel.build.name}", command, env=environment, preexec_fn=lambda: os.nice(5)
        )
    kernel.complete.write_text(kernel.tools_identity)


def configure(kernel: Kernel, environment: dict[str, str]) -> None:
    fragment, base = kernel.build / "fragment.config", kernel.build / BASE
    fragment.write_text(kernel.options)
    # Strict: it fails if Kconfig has ignored an option.  Kconfig itself says nothing then.
    if not kernel.base:
        merge(kernel, environment, "-n", "-s", fragment)
        return
    base.write_text(kernel.base)
    merge(kernel, environment, base, fragment)
    merge(kernel, environment, "-s", kernel.build / ".config", fragment)


def merge(kernel: Kernel, environment: dict[str, str], *words: str | Path) -> None:
    """Merge files of options, the later ones over the earlier ones."""
    script = ("sh", "scripts/kconfig/merge_config.sh", "-O", kernel.build)
    # The script calls make by itself.
    flags = {"MAKEFLAGS": " ".join(kernel.variables())}
    logged("config", *script, *words, cwd=kernel.tree, env={**environment, **flags})


def module(kernel: Kernel, repo: Path = REPO) -> Path:
    """Build ksm_rs, as it is in `repo`, for the kernel; objects stay out of that tree."""
    tree = hashlib.sha256(str(repo).encode()).hexdigest()[:8]
    objects = kernel.build / f"ksm_rs-{tree}"
    objects.mkdir(exist_ok=True)
    command = kernel.make("-C", kernel.build, f"M={repo}", f"MO={objects}", "W=e", "modules")
    with locked(f"module-{kernel.build.name}-{tree}"):
        logged(f"module-{kernel.lane}", *command, env=kernel.tools.environment())
    return objects / "ksm_rs.ko"
