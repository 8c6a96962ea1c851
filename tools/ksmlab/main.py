# SPDX-License-Identifier: GPL-2.0
"""How every tool of this package begins and ends."""

import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from .say import Failure, say


def ended(number: int, _frame) -> NoReturn:
    """Turn a signal into an exception, so that nothing is left behind."""
    sys.exit(128 + number)


def main(run: Callable[[], int], failure_status: int = 1) -> NoReturn:
    """Run a tool; its failures are messages, not tracebacks."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, ended)
    try:
        sys.exit(run())
    except Failure as failure:
        say(f"FAILED: {failure}")
        sys.exit(failure_status)
    except BrokenPipeError:
        sys.exit(128 + signal.SIGPIPE)
