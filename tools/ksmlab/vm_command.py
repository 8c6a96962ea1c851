# SPDX-License-Identifier: GPL-2.0
"""The command line of tools/vm."""

import argparse
import math
import os
import sys
from pathlib import Path

from . import command_package, debian_root, flavour, kernel, kernel_package, setup, vm
from .machine import Images, Request
from .main import main
from .say import Failure

MEMORY = {"um": "512M", "x86": "1G", "debian": "2G"}
TIMEOUT = 300.0

DESCRIPTION = """\
Boots the kernel that the tests use, with this machine's own files as its
read-only root, and runs a command in it as root.
"""
EPILOG = """\
The exit status is the command's; 124 after a timeout; 125 when the kernel
reported a fault or the VM could not be started.  The module's path inside the
VM is in $KSM_RS_KO.
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tools/vm",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="action", required=True)
    run = commands.add_parser("run", help="run a command: tools/vm run [options] -- COMMAND...")
    run.add_argument(
        "--timeout",
        type=float,
        metavar="S",
        default=TIMEOUT,
        help="seconds after which the VM is stopped (default %(default)g)",
    )
    shell = commands.add_parser("shell", help="a shell for people")
    shell.set_defaults(timeout=math.inf)
    for command in (run, shell):
        add_machine_options(command)
    return top


def add_machine_options(to: argparse.ArgumentParser) -> None:
    add = to.add_argument
    add(
        "--lane",
        choices=("um", "x86", "debian"),
        default="um",
        help="User Mode Linux, x86-64 in QEMU, or Debian's kernel and system there (default %(default)s)",
    )
    add(
        "--ksm",
        choices=("rs", "c"),
        default="rs",
        help="the module ksm_rs, or the kernel's own KSM (default %(default)s)",
    )
    add(
        "--flavour",
        choices=flavour.ALL,
        default=flavour.usual(),
        help="what the kernel looks for beside its work (default %(default)s)",
    )
    add(
        "--debug",
        dest="flavour",
        action="store_const",
        const=flavour.DEBUG,
        help="the same as --flavour debug: KASAN, lockdep, kmemleak, fault injection and more",
    )
    add("--no-module", dest="insmod", action="store_false", help="do not load ksm_rs")
    add(
        "--parameters",
        metavar="NAME=VALUE ...",
        default=os.environ.get("KSM_RS_PARAMETERS", ""),
        help="of the module (default: $KSM_RS_PARAMETERS)",
    )
    add("--mem", metavar="SIZE", help="memory (default 512M for um, 1G for x86)")
    add("--cpus", type=int, metavar="N", help="processors (x86 only, default 2)")
    add(
        "--icount",
        action="store_true",
        help="one CPU, whose clock counts instructions as nanoseconds (x86 only)",
    )
    add("--numa", type=int, metavar="N", default=1, help="NUMA nodes (x86 only)")
    add(
        "--huge-pages",
        action="store_true",
        help="have the VM's memory in huge pages, as the benchmark does (um only)",
    )
    add("--share", type=Path, metavar="DIR", help="visible read-write at /mnt/share")
    add("--append", metavar="ARGS", default="", help="more arguments for the kernel")
    add("--console", type=Path, metavar="FILE", help="keep the kernel's log in FILE")


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """Our options, and the command after `--`."""
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def request(options: argparse.Namespace, command: list[str]) -> Request:
    if options.lane == "um" and (options.numa > 1 or (options.cpus or 1) > 1):
        raise Failure("the um lane always has one CPU and one node; use --lane x86")
    if options.icount and (options.lane == "um" or (options.cpus or options.numa) > 1):
        raise Failure("--icount is for one CPU of --lane x86")
    if options.huge_pages and options.lane != "um":
        raise Failure("--huge-pages is for --lane um")
    if options.lane == "debian" and (options.flavour != flavour.ORDINARY or options.numa > 1):
        raise Failure("the lane debian has ordinary kernels and one node")
    if options.share and not options.share.is_dir():
        raise Failure(f"--share: {options.share} is not a directory")
    return Request(
        command=command,
        lane=options.lane,
        ksm=options.ksm,
        flavour=options.flavour,
        insmod=options.insmod,
        parameters=options.parameters,
        mem=options.mem or MEMORY[options.lane],
        cpus=options.cpus or (1 if options.icount else max(2, options.numa)),
        numa=options.numa,
        icount=options.icount,
        huge_pages=options.huge_pages,
        share=options.share and options.share.resolve(),
        timeout=options.timeout,
        append=options.append,
        terminal=sys.stdin.isatty() and sys.stdout.isatty(),
        console=options.console,
    )


def command_of(action: str, given: list[str]) -> list[str]:
    if action == "run":
        if not given:
            raise Failure("no command: tools/vm run [options] -- COMMAND...")
        return given
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure("tools/vm shell needs a terminal")
    return [os.environ.get("SHELL", "/bin/sh"), "-i"]


def images(wanted: Request) -> Images:
    """Builds all that the run needs."""
    if wanted.lane == "debian":
        return debian_images(wanted.ksm)
    built = kernel.of(wanted.lane, wanted.ksm, wanted.flavour, setup.tools())
    kernel.ensure(built)
    module = kernel.module(built) if wanted.ksm == "rs" else None
    return Images(built.image, module, built.options, built.lockup)


def debian_images(ksm: str) -> Images:
    """The system in which packages are installed: those of `make deb`, or Debian's own kernel."""
    if ksm == "rs":
        kernels = kernel_package.ensure(kernel_package.of_debian())
    else:
        kernels = kernel_package.debians_own()
    disk = debian_root.ensure([*kernels, command_package.build()])
    return Images(disk.kernel, None, "", disk=disk)


def run() -> int:
    ours, given = split(sys.argv[1:])
    options = parser().parse_args(ours)
    wanted = request(options, command_of(options.action, given))
    return vm.run(wanted, images(wanted))


if __name__ == "__main__":
    main(run, failure_status=vm.VM_FAILED)
