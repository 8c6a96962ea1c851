# SPDX-License-Identifier: GPL-2.0
"""Kernel configuration: fragments on top of allnoconfig."""

from pathlib import Path

from . import flavour as flavours
from .paths import REPO


def fragments(lane: str, ksm: str, flavour: str, repo: Path) -> list[Path]:
    names = (lane, f"ksm-{ksm}", *flavours.fragments(lane, flavour))
    return [repo / "configs" / f"{name}.config" for name in names]


def merged(lane: str, ksm: str, flavour: str = flavours.ORDINARY, repo: Path = REPO) -> str:
    """All fragments; no two may set an option to different values."""
    return "".join(path.read_text() for path in fragments(lane, ksm, flavour, repo))
