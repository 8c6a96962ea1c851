# SPDX-License-Identifier: GPL-2.0
"""The Debian package ksm-rs: the command `ksm`, the module's loading, and its settings."""

import shutil
import subprocess
import tomllib
from pathlib import Path

from . import programs, setup
from .locks import locked
from .paths import REPO, in_cache
from .shell import logged

SOURCES = REPO / "packages/ksm-rs"
PROGRAM = REPO / "ksm"

# What each shell wants its completions to be called.
COMPLETIONS = {"bash": "ksm", "zsh": "_ksm", "fish": "ksm.fish"}

CHANGELOG = """\
ksm-rs ({version}) unstable; urgency=medium

  * The state of {date}.

 -- ksm_rs maintainers <maintainers@users.noreply.r-seed-998bb4c8.example>  {date}
"""


def build() -> Path:
    """Builds the package, and returns it."""
    setup.need({"dh": "debhelper"})
    built = programs.build_static(PROGRAM.name)
    with locked("ksm-rs-package"):
        staging = in_cache("deb", "ksm-rs", "build")
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(SOURCES, staging)
        stage(built, staging)
        logged("ksm-rs-package", "dpkg-buildpackage", "-b", "-us", "-uc", cwd=staging)
        return max(staging.parent.glob("ksm-rs_*.deb"), key=lambda package: package.stat().st_mtime)


def stage(built: Path, staging: Path) -> None:
    """Puts the programs, and all that follows from one, where debhelper looks for them."""
    for name in ("ksm", "ksm-domain"):
        shutil.copy(built / name, staging)
    program = built / "ksm"
    completions = staging / "completions"
    completions.mkdir()
    for shell, name in COMPLETIONS.items():
        (completions / name).write_bytes(generated(program, "completions", shell))
    generated(program, "manuals", staging / "man")
    (staging / "debian/changelog").write_text(
        CHANGELOG.format(version=version(), date=date_of_sources())
    )


def generated(program: Path, *words: str | Path) -> bytes:
    return subprocess.run([program, *words], check=True, capture_output=True).stdout


def version() -> str:
    return tomllib.loads((PROGRAM / "Cargo.toml").read_text())["package"]["version"]


def date_of_sources() -> str:
    """The last commit's, so that the same sources make the same package."""
    command = ["git", "-C", REPO, "log", "-1", "--format=%aD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
