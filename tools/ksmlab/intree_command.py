# SPDX-License-Identifier: GPL-2.0
"""Writes the module into a kernel tree, as mm/ksm_rs/, with CONFIG_KSM_RS to build it.

The tree must have the series of patches/ applied (see docs/porting.md).  What
mm/ksm_rs/ held before is replaced, so that the command can be repeated.
"""

import argparse
from pathlib import Path

from . import intree
from .main import main
from .say import say


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/intree", description=__doc__)
    parser.add_argument("tree", type=Path, help="a kernel source tree with the series applied")
    return parser.parse_args()


def run() -> int:
    target = intree.write(parse().tree.resolve())
    say(f"the module is in {target}; CONFIG_KSM_RS=m builds it")
    return 0


if __name__ == "__main__":
    main(run)
