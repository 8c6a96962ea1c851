# SPDX-License-Identifier: GPL-2.0
"""The seed of a run's random tests: a new one each time, unless the environment names one."""

import os
import random

VARIABLE = "KSM_RS_SEED"

# So many bits are soon typed again.
BITS = 32


def choose() -> None:
    """Put a seed into the environment, which all workers of pytest inherit, unless one is there."""
    if not os.environ.get(VARIABLE):
        os.environ[VARIABLE] = str(random.getrandbits(BITS))
    chosen()


def chosen() -> int:
    """The seed of this run."""
    given = os.environ[VARIABLE]
    # Not all digits are ASCII's.
    if not (given.isascii() and given.isdigit() and int(given) < 1 << BITS):
        raise ValueError(f"{VARIABLE} is {given!r}; it must be a number below 2^{BITS}")
    return int(given)


def again() -> str:
    """How to have the same random numbers again."""
    return f"{chosen()} (make test SEED={chosen()} takes it again)"
