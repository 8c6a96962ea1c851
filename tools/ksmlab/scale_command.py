# SPDX-License-Identifier: GPL-2.0
"""Measures the module's data structures at the size of a host of terabytes,
in a program that is built from the same sources."""

import subprocess
import sys

from . import programs
from .main import main


def run() -> int:
    program = programs.build_one("ksm-scale")
    return subprocess.run([program, *sys.argv[1:]]).returncode


if __name__ == "__main__":
    main(run)
