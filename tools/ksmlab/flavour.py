# SPDX-License-Identifier: GPL-2.0
"""The flavours in which a kernel is built: each looks for other mistakes."""

import os

from .say import Failure

ORDINARY = "ordinary"
DEBUG = "debug"
KCSAN = "kcsan"

ALL = (ORDINARY, DEBUG, KCSAN)

# Fragments of configs/ that a flavour adds, in this order.
FRAGMENTS = {
    ("um", DEBUG): ("debug", "debug-um"),
    ("x86", DEBUG): ("debug", "debug-x86"),
    ("x86", KCSAN): ("kcsan-x86",),
}

# Kernel arguments: what is built in but off, and reports after the first one.
# With the five-level page tables that QEMU offers, KASAN has no shadow yet for
# what the first interrupt touches.  A task that is preempted wherever that is allowed
# shows more races than one that is preempted lazily.
ARGUMENTS = {
    ("um", DEBUG): ("page_poison=1", "kasan_multi_shot"),
    ("x86", DEBUG): ("page_poison=1", "kasan_multi_shot", "no5lvl", "preempt=full"),
    ("x86", KCSAN): ("preempt=full",),
}


def usual() -> str:
    """What the environment asks for, as `make test DEBUG=1` does."""
    given = os.environ.get("KSM_RS_FLAVOUR") or ORDINARY
    if given not in ALL:
        raise Failure(f"KSM_RS_FLAVOUR is {given!r}; it may be {', '.join(ALL)}")
    return given


def fragments(lane: str, flavour: str) -> tuple[str, ...]:
    if flavour == ORDINARY:
        return ()
    found = FRAGMENTS.get((lane, flavour))
    if not found:
        raise Failure(f"the lane {lane} has no {flavour} kernel")
    return found


def arguments(lane: str, flavour: str) -> tuple[str, ...]:
    return ARGUMENTS.get((lane, flavour), ())
