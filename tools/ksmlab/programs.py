# SPDX-License-Identifier: GPL-2.0
"""The programs of tests/ and bench/, which run inside the VM."""

import hashlib
import os
from pathlib import Path

from . import setup, toolchain
from .main import main
from .paths import REPO, in_cache
from .say import step
from .shell import logged


def target() -> Path:
    """Where cargo builds: outside the tree, and apart for each work tree."""
    tree = hashlib.sha256(str(REPO).encode()).hexdigest()[:8]
    return in_cache("cargo", tree)


def directory() -> Path:
    """Where the finished programs are."""
    return target() / "release"


def build() -> Path:
    setup.tools()
    command = [
        toolchain.find_cargo(),
        *("build", "--release", "--locked", "--workspace", "--bins"),
        *("--manifest-path", REPO / "tests/Cargo.toml"),
    ]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target())}
    with step("building the test programs"):
        logged("programs", *command, env=environment)
    return directory()


def run() -> int:
    print(build())
    return 0


if __name__ == "__main__":
    main(run)
