# SPDX-License-Identifier: GPL-2.0
"""Messages for people: on standard error, which no caller parses."""

import sys
import time
from contextlib import contextmanager


class Failure(Exception):
    """Ends a tool with a message instead of a traceback."""


def say(text: str) -> None:
    print(f"ksm_rs: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(what: str):
    """Announce a step that takes a while, then say how long it took."""
    say(f"{what} ...")
    began = time.monotonic()
    yield
    say(f"{what}: done in {time.monotonic() - began:.0f} s")
