# SPDX-License-Identifier: GPL-2.0
"""The module's own sources: not those of programs that stand beside it."""

from pathlib import Path

from .paths import REPO

# Folders with Rust programs, for the machine that the module is built on, for a VM, or for administrators.
PROGRAMS = ("bench", "ksm", "scale", "tests", "tools")


def module_sources() -> list[Path]:
    """The module's Rust files, in all of its folders."""
    folders = [path for path in REPO.iterdir() if path.is_dir() and path.name not in PROGRAMS]
    nested = [file for folder in folders for file in folder.rglob("*.rs")]
    return sorted([*REPO.glob("*.rs"), *nested])


def git_pathspec() -> list[str]:
    """What git calls the module's sources, and all else that a module is built from."""
    programs = [f":(exclude){folder}" for folder in PROGRAMS]
    return [":(glob)**/*.rs", "patches", "configs", "Kbuild", *programs]
