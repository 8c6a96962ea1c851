# SPDX-License-Identifier: GPL-2.0
"""Where things are: the work tree, and the cache outside of it."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """The directory that holds all that set-up fetches and builds.

    Without symbolic links: a VM has directories of its own, which they may lead through.
    """
    given = os.environ.get("KSM_RS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given or Path(base) / "ksm_rs").resolve()


def in_cache(*parts: str) -> Path:
    """A path in the cache whose parent directory exists."""
    path = cache().joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
