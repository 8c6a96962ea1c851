# SPDX-License-Identifier: GPL-2.0
"""Debian packages of a kernel with the options of Debian's own, and the module inside."""

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

from . import apt, intree, kernel, setup, source, toolchain
from .kernel import Kernel
from .locks import locked
from .paths import REPO, in_cache
from .say import step
from .shell import watched
from .toolchain import Toolchain

# Not the name of Debian's source package, which would make both look like one.
SOURCE_NAME = "linux-ksm-rs"

# An installed system has the headers of the kernel's interface from Debian's own kernel.
UNWANTED = "linux-libc-dev_"

# Debian's flavour that is packaged unless another one is asked for.
FLAVOUR = "cloud-amd64"

WITHOUT_DEBUG_INFO = "CONFIG_DEBUG_INFO_NONE=y\n"


def of_debian(flavour: str = FLAVOUR, with_debug_info: bool = False) -> Kernel:
    """Debian's kernel of that flavour, such as cloud-amd64, with the patches and the module."""
    options = (REPO / "configs/debian.config").read_text()
    if not with_debug_info:
        options += WITHOUT_DEBUG_INFO
    tools = dataclasses.replace(setup.tools(), with_gcc=toolchain.has_gcc())
    return named(flavour, tools, options, source.debian_options(flavour))


def debians_own(flavour: str = FLAVOUR) -> list[Path]:
    """The packages of Debian's kernel of that flavour itself, which has mm/ksm.c."""
    packages = in_cache("deb", f"debian-{flavour}")
    with locked("kernel-package"):
        if not packages.exists():
            fetch(f"linux-image-{flavour}", packages)
    return sorted(packages.glob("*.deb"))


def fetch(image: str, packages: Path) -> None:
    suite = apt.OtherSuite(source.SUITE)
    suite.update()
    with (
        step(f"fetching {image} (100 MB)"),
        tempfile.TemporaryDirectory(dir=packages.parent) as scratch,
    ):
        partial = Path(scratch, "packages")
        for package in suite.with_needs(image, "linux-"):
            suite.download(package, partial)
        partial.rename(packages)


def lean() -> Kernel:
    """The kernel of the lane x86 with the module inside: minutes, where Debian's takes hours."""
    tools = setup.tools()
    return named("lean", tools, intree.kernel_with_module("x86", tools).options)


def named(flavour: str, tools: Toolchain, options: str, base: str = "") -> Kernel:
    """A kernel that is installed beside others, by the flavour behind its version; not built yet."""
    return dataclasses.replace(
        intree.kernel_with_module("x86", tools),
        options=f'{options}CONFIG_LOCALVERSION="-ksm-rs-{flavour}"\n',
        variant=f"package-{flavour}",
        base=base,
    )


def ensure(wanted: Kernel) -> list[Path]:
    """The packages of the kernel, which is built unless the cache has it."""
    kernel.ensure(wanted)
    packages = in_cache("deb", wanted.build.name)
    with locked("kernel-package"):
        if not packages.exists():
            build(wanted, packages)
    return sorted(packages.glob("*.deb"))


def build(wanted: Kernel, packages: Path) -> None:
    setup.need({"dh": "debhelper"})
    command = wanted.make("-C", wanted.tree, f"O={wanted.build}", "bindeb-pkg")
    environment = {**wanted.tools.environment(), **variables()}
    with step(f"packaging the kernel {wanted.name} (minutes)"):
        watched(f"deb-{wanted.build.name}", command, env=environment)
    collect(wanted.build.parent, packages)


def variables() -> dict[str, str]:
    """For the kernel's scripts that make packages."""
    return {
        "KDEB_PKGVERSION": version(),
        "KDEB_SOURCENAME": SOURCE_NAME,
        "KDEB_CHANGELOG_DIST": "unstable",
        "KBUILD_BUILD_USER": "ksm_rs",
        "KBUILD_BUILD_HOST": "localhost",
        "DEBFULLNAME": "ksm_rs maintainers",
        "DEBEMAIL": "maintainers@users.noreply.r-seed-998bb4c8.example",
        # What the build needs is there, if not by the names that Debian's packages have.
        "DPKG_FLAGS": "-d",
        "DEB_BUILD_OPTIONS": f"terse parallel={os.cpu_count()}",
    }


def version() -> str:
    """Above Debian's version that it is made from, and below its next one."""
    return f"{source.find().identity.removeprefix('debian-')}+ksmrs1"


def collect(beside: Path, packages: Path) -> None:
    """Keep the packages, which the build leaves beside its directory."""
    partial = packages.with_name(f"{packages.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for file in beside.glob(f"*_{version()}_*"):
        if file.suffix == ".deb" and not file.name.startswith(UNWANTED):
            shutil.move(file, partial / file.name)
        else:
            file.unlink()
    partial.rename(packages)
