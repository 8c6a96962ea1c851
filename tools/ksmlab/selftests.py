# SPDX-License-Identifier: GPL-2.0
"""The kernel's own tests of KSM, unmodified, as programs that run in a VM.

Their Makefile writes beside the sources, so it is given a copy of these.
"""

import shutil
from pathlib import Path

from . import setup, source
from .locks import locked
from .paths import in_cache
from .say import step
from .shell import logged

PROGRAMS = ("ksm_functional_tests", "ksm_tests", "merge", "rmap")

# What the programs are built from, relative to the kernel's tree.
SELFTESTS = Path("tools/testing/selftests")
NEEDED = (
    *(SELFTESTS / name for name in ("mm", "lib.mk", "kselftest.h", "kselftest_harness.h")),
    Path("tools/include"),
    Path("include/vdso"),
    Path("mm/gup_test.h"),
)


def home() -> Path:
    """All that belongs to these tests, in the cache."""
    return in_cache("selftests", source.find().identity)


def sources() -> Path:
    """The directory of the tests of mm."""
    return home() / "tree" / SELFTESTS / "mm"


def directory() -> Path:
    """Where the finished programs are."""
    return home() / "bin"


def build() -> Path:
    """Build the programs unless the cache has them."""
    environment = setup.tools().environment()
    with locked("selftests"):
        if not (home() / ".complete").exists():
            with step("building the kernel's own tests of KSM"):
                copy_sources()
                install_headers(environment)
                compile_programs(environment)
            (home() / ".complete").touch()
    return directory()


def copy_sources() -> None:
    shutil.rmtree(home(), ignore_errors=True)
    (home() / "tree").mkdir(parents=True)
    origin = source.find().tree
    names = [f"{origin}/./{name}" for name in NEEDED]
    logged("selftests", "rsync", "-a", "--relative", *names, f"{home()}/tree/")


def install_headers(environment: dict[str, str]) -> None:
    """The kernel's own headers: the machine's may be too old for the tests."""
    out = f"O={home() / 'headers'}"
    command = ("make", "-C", source.find().tree, out, "ARCH=x86_64", "headers")
    logged("selftests", *command, env=environment)


def compile_programs(environment: dict[str, str]) -> None:
    directory().mkdir()
    includes = f"KHDR_INCLUDES=-isystem {home() / 'headers/usr/include'}"
    command = ("make", "-C", sources(), f"OUTPUT={directory()}", includes)
    programs = (directory() / name for name in PROGRAMS)
    logged("selftests", *command, *programs, env=environment)
