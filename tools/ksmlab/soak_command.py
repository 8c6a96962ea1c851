# SPDX-License-Identifier: GPL-2.0
"""Lets everything happen to memory for an hour in a debug kernel: rounds of the
case soak-full, of random sequences, and of unloading the module."""

import argparse
import random
import tempfile
import time
from pathlib import Path

from . import flavour, kernel, programs, regressions, setup, vm
from .machine import Images, Request
from .main import main
from .say import say

MACHINE = {
    "um": {"cpus": 1, "numa": 1, "mem": "1G"},
    "x86": {"cpus": 2, "numa": 2, "mem": "2G"},
}

# The last round may take much longer than a short one.
SPARE_SECONDS = 1800


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/soak", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, default=60, help="how long (default %(default)g)")
    add("--turn", type=int, default=60, metavar="S", help="seconds of a program in a round")
    add("--lane", choices=("um", "x86"), default="x86", help="default %(default)s")
    add("--flavour", choices=flavour.ALL, default=flavour.DEBUG, help="default %(default)s")
    add("--seed", type=int, help="where random numbers begin (default: anywhere)")
    add("--parameters", default="", metavar="NAME=VALUE ...", help="of the module")
    add("--console", type=Path, metavar="FILE", help="keep the kernel's log in FILE")
    return parser.parse_args()


def request(options: argparse.Namespace, share: Path) -> Request:
    seed = random.getrandbits(32) if options.seed is None else options.seed
    seconds = round(options.minutes * 60)
    command = ["ksm-soak", "--seconds", seconds, "--turn", options.turn, "--seed", seed]
    return Request(
        command=[*map(str, command), "--regressions", "/mnt/share"],
        lane=options.lane,
        flavour=options.flavour,
        parameters=options.parameters,
        share=share,
        timeout=seconds + SPARE_SECONDS,
        console=options.console,
        **MACHINE[options.lane],
    )


def run() -> int:
    options = parse()
    built = kernel.of(options.lane, "rs", options.flavour, setup.tools())
    kernel.ensure(built)
    programs.build()
    images = Images(built.image, kernel.module(built), built.options)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ksm-soak-") as directory:
        share = Path(directory) / "regressions"
        regressions.copy_to(share)
        wanted = request(options, share)
        say(f"{' '.join(wanted.command)} in the kernel {built.name}")
        status = vm.run(wanted, images)
        regressions.keep_new(share, "soak")
    minutes = (time.monotonic() - began) / 60
    say(f"soak {'passed' if status == 0 else 'FAILED'} after {minutes:.0f} minutes")
    return status


if __name__ == "__main__":
    main(run)
