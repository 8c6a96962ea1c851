# SPDX-License-Identifier: GPL-2.0
"""Finds what the kernel, the module and the tests are built with, and installs
the rest: Debian packages through apt, bindgen through cargo."""

import argparse
import hashlib
import os
import shutil
from pathlib import Path

from . import apt, flavour, kernel, source, toolchain
from .locks import locked
from .main import main
from .paths import REPO, cache, in_cache
from .say import Failure, say, step
from .shell import logged, output
from .toolchain import Toolchain

# What each package is installed for.
PROGRAMS = {
    "make": "make",
    "cc": "gcc",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "cpio": "cpio",
    "rsync": "rsync",
    "patch": "patch",
    "xz": "xz-utils",
    "insmod": "kmod",
    "qemu-system-x86_64": "qemu-system-x86",
}
HEADERS = {
    "stdio.h": "libc6-dev",
    "libelf.h": "libelf-dev",
    "openssl/opensslv.h": "libssl-dev",
    "numa.h": "libnuma-dev",
}
LLVM = 19
BINDGEN = "0.73.2"
LLVM_PACKAGES = [f"{name}-{LLVM}" for name in ("clang", "lld", "llvm")] + [f"libclang-{LLVM}-dev"]

# Debian 12 has its newest compiler under a name of its own.
RUST_PACKAGES = (("rustc", "rust-src"), ("rustc-web", "rust-web-src"))
CARGO_PACKAGES = ("cargo", "cargo-web")

PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def tools() -> Toolchain:
    """The compilers, after installing what is missing."""
    found = toolchain.find()
    if found and toolchain.find_cargo() and not missing_packages():
        return found
    with locked("setup"):
        install_packages()
        if not toolchain.find_bindgen():
            install_bindgen()
    found = toolchain.find()
    if not found:
        raise Failure(
            "no usable clang, rustc (with its library's source) and bindgen, even after "
            "installing packages; `which -a clang-19 rustc bindgen` may say why"
        )
    return found


def missing_packages() -> list[str]:
    """Packages for what cannot be found on this machine."""
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name, path=PATH)]
    missing += [
        package for header, package in HEADERS.items() if not Path("/usr/include", header).exists()
    ]
    if not toolchain.find_llvm():
        missing += LLVM_PACKAGES
    if not output("/usr/bin/python3", "-c", "import ensurepip; print('yes')"):
        missing.append("python3-venv")
    return missing


def install_packages() -> None:
    missing = missing_packages()
    if not toolchain.find_rustc():
        missing += new_enough(RUST_PACKAGES)
    if not toolchain.find_cargo():
        missing += new_enough([(name,) for name in CARGO_PACKAGES])
    if not toolchain.find_bindgen() and packaged("bindgen", toolchain.BINDGEN_OLDEST):
        missing.append("bindgen")
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure(f"this machine has no apt; install what Debian calls {' '.join(missing)}")
    apt.install(missing)


def need(packages: dict[str, str]) -> None:
    """Installs what only some commands use, named after a program of each package."""
    with locked("setup"):
        missing = [
            package for name, package in packages.items() if not shutil.which(name, path=PATH)
        ]
        if missing:
            apt.install(missing)


def packaged(package: str, oldest: tuple[int, ...]) -> bool:
    """Whether apt offers the package in this version or a newer one."""
    candidate = apt.candidate(package)
    return candidate is not None and apt.numbers(candidate) >= oldest


def new_enough(alternatives) -> list[str]:
    """The first of several sets of Rust packages that the kernel accepts."""
    for attempt in (1, 2):
        for names in alternatives:
            if all(packaged(name, toolchain.RUSTC_OLDEST) for name in names):
                return list(names)
        if attempt == 1:
            apt.refresh()
    raise Failure(f"no package of {alternatives} is version 1.85 or newer")


def install_bindgen() -> None:
    cargo = toolchain.find_cargo()
    program = ("bindgen-cli", "--version", BINDGEN)
    command = [cargo, "install", *program, "--locked", "--root", in_cache("bindgen")]
    environment = {**os.environ, "RUSTC": str(toolchain.find_rustc())}
    with step("building bindgen with cargo (a minute or two)"):
        logged("bindgen", *command, env=environment)


def python() -> Path:
    """Python with the packages that the tests need, in an environment of its own."""
    requirements = REPO / "tools/requirements.txt"
    version = output("/usr/bin/python3", "--version")
    key = hashlib.sha256(requirements.read_bytes() + version.encode()).hexdigest()[:8]
    environment = in_cache(f"python-{key}")
    with locked("python"):
        if not (environment / ".complete").exists():
            with step("installing the test runner's Python packages"):
                logged("python", "/usr/bin/python3", "-m", "venv", "--clear", environment)
                pip = [environment / "bin/pip", "install", "--quiet", "-r", requirements]
                logged("python", *pip)
            (environment / ".complete").touch()
    return environment / "bin/python"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/setup", description=__doc__)
    parser.add_argument("--kernels", action="store_true", help="build the kernels of both lanes")
    return parser.parse_args()


def run() -> int:
    options = parse()
    found = tools()
    python()
    say(f"tools: clang-{found.llvm}, {found.rustc}, {found.bindgen}")
    say(f"kernel source, patched: {source.patched(source.find())}")
    if options.kernels:
        for lane in ("um", "x86"):
            for ksm in ("rs", "c"):
                kernel.ensure(kernel.of(lane, ksm, flavour.usual(), found))
    say(f"all is in {cache()}")
    return 0


if __name__ == "__main__":
    main(run)
