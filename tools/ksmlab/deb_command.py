# SPDX-License-Identifier: GPL-2.0
"""Builds Debian packages: of a kernel with Debian's own configuration and the module inside, and
ksm-rs, which loads and sets the module.

An interrupted build goes on where it was.
"""

import argparse
import shutil
from pathlib import Path

from . import command_package, kernel_package
from .main import main
from .paths import in_cache
from .say import say

def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/deb", description=__doc__)
    parser.add_argument("--flavour", default=kernel_package.FLAVOUR, help="of Debian's kernel (default: %(default)s)")
    parser.add_argument("--debug-info", action="store_true", help="with debug info and BTF")
    parser.add_argument("--command-only", action="store_true", help="the package ksm-rs only")
    parser.add_argument("--into", type=Path, help="the directory for the packages")
    return parser.parse_args()


def run() -> int:
    options = parse()
    packages = [command_package.build()]
    if not options.command_only:
        kernel = kernel_package.of_debian(options.flavour, options.debug_info)
        packages += kernel_package.ensure(kernel)
    into = options.into or in_cache("deb", "packages")
    into.mkdir(parents=True, exist_ok=True)
    for package in packages:
        shutil.copy(package, into)
        say(f"{into / package.name}")
    return 0


if __name__ == "__main__":
    main(run)
