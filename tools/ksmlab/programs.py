# SPDX-License-Identifier: GPL-2.0
"""The programs of tests/ and bench/, which run inside the VM, of scale/, which needs none, and of ksm/."""

import hashlib
import os
from pathlib import Path

from . import setup, toolchain
from .main import main
from .paths import REPO, in_cache
from .say import step
from .shell import logged


HOST = "x86_64-unknown-linux-gnu"


def target() -> Path:
    """Where cargo builds: outside the tree, and apart for each work tree."""
    tree = hashlib.sha256(str(REPO).encode()).hexdigest()[:8]
    return in_cache("cargo", tree)


def directory() -> Path:
    """Where the finished programs are."""
    return target() / "release"


def build() -> Path:
    setup.tools()
    with step("building the test programs"):
        cargo("programs", "build", "--bins")
    return directory()


def build_one(name: str) -> Path:
    """Builds one program only, and returns it."""
    setup.tools()
    with step(f"building {name}"):
        cargo("programs", "build", "--bin", name, packages=("--package", name))
    return directory() / name


def build_static(package: str) -> Path:
    """Builds the programs of a package so that they run with any C library; returns their directory."""
    setup.tools()
    with step(f"building {package}"):
        static = {"RUSTFLAGS": "-C target-feature=+crt-static -C strip=symbols"}
        # With a target named, flags are not those of build scripts, which are no static programs.
        words = ("build", "--bins", "--target", HOST)
        cargo("programs", *words, packages=("--package", package), variables=static)
    return target() / HOST / "release"


def test() -> None:
    """Runs the tests that the programs have of themselves, outside of any VM."""
    setup.tools()
    cargo("program-tests", "test", "--lib", "--bins")


def cargo(
    log: str,
    *words: str,
    packages: tuple[str, ...] = ("--workspace",),
    variables: dict[str, str] | None = None,
) -> None:
    """Has cargo do something with programs, by the compiler that the module is built with."""
    rustc = toolchain.find_rustc()
    options = ("--release", "--locked", *packages, "--manifest-path", REPO / "tests/Cargo.toml")
    usual = {"CARGO_TARGET_DIR": str(target()), "RUSTC": str(rustc)}
    environment = {**os.environ, **usual, **(variables or {})}
    logged(log, toolchain.find_cargo(), *words, *options, env=environment)


def run() -> int:
    print(build())
    return 0


if __name__ == "__main__":
    main(run)
