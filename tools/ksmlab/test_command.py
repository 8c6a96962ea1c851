# SPDX-License-Identifier: GPL-2.0
"""Runs the tests: first builds everything that they need, then calls pytest."""

import os
import sys

from . import flavour, kernel, programs, selftests, setup
from .main import main
from .paths import REPO

# Two VMs at a time: half of a test's time is booting and waiting.
IN_PARALLEL = ("-n", "2", "--dist", "loadgroup")


def run() -> int:
    tools = setup.tools()
    for lane in ("um", "x86"):
        for ksm in ("rs", "c"):
            kernel.ensure(kernel.of(lane, ksm, flavour.usual(), tools))
        kernel.module(kernel.of(lane, "rs", flavour.usual(), tools))
    programs.build()
    selftests.build()
    python = setup.python()
    os.chdir(REPO / "tests")
    os.execv(python, [str(python), "-m", "pytest", *IN_PARALLEL, "-v", *sys.argv[1:]])


if __name__ == "__main__":
    main(run)
