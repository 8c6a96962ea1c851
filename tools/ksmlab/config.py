# SPDX-License-Identifier: GPL-2.0
"""Kernel configuration: fragments on top of allnoconfig, checked afterwards."""

import re
from pathlib import Path

from . import flavour as flavours
from .paths import REPO
from .say import Failure

OPTION = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.M)


def fragments(lane: str, ksm: str, flavour: str, repo: Path) -> list[Path]:
    names = (lane, f"ksm-{ksm}", *flavours.fragments(lane, flavour))
    return [repo / "configs" / f"{name}.config" for name in names]


def merged(lane: str, ksm: str, flavour: str = flavours.ORDINARY, repo: Path = REPO) -> str:
    """All fragments; where two set an option, the later one counts."""
    return "".join(path.read_text() for path in fragments(lane, ksm, flavour, repo))


def options(text: str) -> dict[str, str]:
    """Each option that `text` sets; one that is not set has the value n."""
    return {yes or no: value or "n" for yes, value, no in OPTION.findall(text)}


def check(wanted: str, config: Path) -> None:
    """Fail if Kconfig did not take an option, as it does without a word."""
    have = options(config.read_text())
    ignored = [
        f"{name}={value} (it is {have.get(name, 'n')})"
        for name, value in options(wanted).items()
        if have.get(name, "n") != value
    ]
    if ignored:
        raise Failure(f"options that did not take effect in {config}: {', '.join(ignored)}")
