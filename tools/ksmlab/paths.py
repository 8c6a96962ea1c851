# SPDX-License-Identifier: GPL-2.0
"""Where things are: the work tree, and the cache outside of it."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """The directory that holds all that set-up fetches and builds."""
    given = os.environ.get("KSM_RS_CACHE")
    if given:
        return Path(given).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "ksm_rs"


def in_cache(*parts: str) -> Path:
    """A path in the cache whose parent directory exists."""
    path = cache().joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
