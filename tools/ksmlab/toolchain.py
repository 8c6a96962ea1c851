# SPDX-License-Identifier: GPL-2.0
"""Finds the compilers that build the kernel and the module."""

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from .paths import cache
from .shell import output

LLVM_OLDEST = 19
RUSTC_OLDEST = (1, 85, 0)
BINDGEN_OLDEST = (0, 71, 1)
GCC_OLDEST = (8, 1, 0)
LLVM_TOOLS = ("clang", "ld.lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-readelf", "llvm-strip")


def version(program: Path | str) -> tuple[int, ...]:
    """The version that `program --version` gives, empty if it does not run."""
    return version_of(output(program, "--version"))


def version_of(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else ()


def first_new_enough(candidates, oldest: tuple[int, ...]) -> Path | None:
    for candidate in candidates:
        if candidate and version(candidate) >= oldest:
            return Path(candidate)
    return None


def find_llvm() -> int | None:
    """The newest LLVM of which all tools are there, with libclang for bindgen."""
    for number in range(LLVM_OLDEST + 20, LLVM_OLDEST - 1, -1):
        tools = all(shutil.which(f"{tool}-{number}") for tool in LLVM_TOOLS)
        if tools and any(libclang_directory(number).glob("libclang*.so*")):
            return number
    return None


def libclang_directory(llvm: int) -> Path:
    return Path(f"/usr/lib/llvm-{llvm}/lib")


def rust_source(rustc: Path | str) -> Path | None:
    """The standard library's source, which the kernel builds `core` from."""
    root = output(rustc, "--print", "sysroot").strip()
    source = Path(root) / "lib/rustlib/src/rust/library"
    return source if root and (source / "core/src/lib.rs").exists() else None


def find_rustc() -> Path | None:
    """A compiler with its library's source; one of rustup often has none."""
    candidates = [os.environ.get("RUSTC"), "/usr/bin/rustc", shutil.which("rustc")]
    with_source = [rustc for rustc in candidates if rustc and rust_source(rustc)]
    return first_new_enough(with_source, RUSTC_OLDEST)


def find_bindgen() -> Path | None:
    own = cache() / "bindgen/bin/bindgen"
    candidates = [os.environ.get("BINDGEN"), own, "/usr/bin/bindgen", shutil.which("bindgen")]
    return first_new_enough(candidates, BINDGEN_OLDEST)


def find_cargo() -> Path | None:
    candidates = [shutil.which("cargo"), Path.home() / ".cargo/bin/cargo", "/usr/bin/cargo"]
    return first_new_enough(candidates, RUSTC_OLDEST)


@dataclass(frozen=True)
class Toolchain:
    """The programs, and the library source, that a kernel is built with."""

    llvm: int
    rustc: Path
    rust_src: Path
    bindgen: Path
    # gcc in place of clang, as Debian's kernels are built.
    with_gcc: bool = False

    def make_arguments(self) -> list[str]:
        return [
            *([] if self.with_gcc else [f"LLVM=-{self.llvm}"]),
            f"RUSTC={self.rustc}",
            f"HOSTRUSTC={self.rustc}",
            f"RUST_LIB_SRC={self.rust_src}",
            f"BINDGEN={self.bindgen}",
        ]

    def environment(self) -> dict[str, str]:
        """Without what a caller's shell might add to a kernel build."""
        dropped = ("RUSTFLAGS", "CARGO_BUILD_TARGET", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
        kept = {key: value for key, value in os.environ.items() if key not in dropped}
        return {**kept, "LC_ALL": "C", "LIBCLANG_PATH": str(libclang_directory(self.llvm))}

    def identity(self) -> str:
        """Changes when one of the tools does."""
        llvm = (f"clang-{self.llvm}", f"ld.lld-{self.llvm}")
        tools = (*(("gcc", "ld") if self.with_gcc else llvm), self.rustc, self.bindgen)
        versions = "".join(output(tool, "--version") for tool in tools)
        return hashlib.sha256(versions.encode()).hexdigest()


def has_gcc() -> bool:
    return version_of(output("gcc", "-dumpfullversion")) >= GCC_OLDEST


def find() -> Toolchain | None:
    """All of it, or nothing."""
    llvm, rustc, bindgen = find_llvm(), find_rustc(), find_bindgen()
    if not (llvm and rustc and bindgen):
        return None
    return Toolchain(llvm, rustc, rust_source(rustc), bindgen)
