# SPDX-License-Identifier: GPL-2.0
"""Locks between runs of these tools that share a cache."""

import fcntl
import time
from contextlib import contextmanager

from .paths import in_cache
from .say import say

# Most holders are done sooner; then nobody needs to read about it.
PATIENCE_SECONDS = 5.0


def try_lock(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(name: str):
    """Hold the lock `name`; it is free again when this process ends."""
    with open(in_cache("locks", name), "w") as file:
        patience = time.monotonic() + PATIENCE_SECONDS
        while not try_lock(file) and time.monotonic() < patience:
            time.sleep(0.1)
        if not try_lock(file):
            say(f"waiting: another run is working on {name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
