# SPDX-License-Identifier: GPL-2.0
"""Locks between runs of these tools that share a cache."""

import fcntl
from contextlib import contextmanager

from .paths import in_cache
from .say import say


@contextmanager
def locked(name: str):
    """Hold the lock `name`; it is free again when this process ends."""
    with open(in_cache("locks", name), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another run is working on {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
