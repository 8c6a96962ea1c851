# SPDX-License-Identifier: GPL-2.0
"""What a VM is asked to do, and what an emulator needs to know to start it."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from . import flavour
from .say import Failure


@dataclass
class Request:
    """One run of a VM, as the command line describes it."""

    command: list[str]
    lane: str = "um"
    ksm: str = "rs"
    flavour: str = flavour.ORDINARY
    insmod: bool = True
    parameters: str = ""  # of the module
    mem: str = "512M"
    cpus: int = 2
    numa: int = 1
    icount: bool = False
    huge_pages: bool = False  # behind all memory of the um lane; as root only
    share: Path | None = None
    timeout: float = 300.0
    append: str = ""
    terminal: bool = False
    console: Path | None = None


@dataclass(frozen=True)
class Disk:
    """A system to boot: its disk, and copies of what a boot loader would read from it."""

    directory: Path

    @property
    def image(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"


@dataclass
class Images:
    """The kernel that is booted, and the modules that go with it."""

    kernel: Path
    module: Path | None
    options: str  # that the kernel promises to have
    lockup: Path | None = None  # the kernel's test_lockup, for tests
    disk: Disk | None = None  # in the lane debian


@dataclass
class Wiring:
    """What joins the VM to the host."""

    directory: Path  # of this run; the VM writes its verdict there
    log: BinaryIO  # the kernel's console
    out: BinaryIO  # COMMAND's output and errors, unless it has a terminal
    err: BinaryIO
    terminal: socket.socket | None  # COMMAND's terminal, if it has one

    def descriptors(self) -> list[int]:
        """What an emulator may have to inherit."""
        open_files = (self.log, self.out, self.err, self.terminal)
        return [file.fileno() for file in open_files if file]


def boot_arguments(request: Request, wiring: Wiring) -> list[str]:
    """Kernel arguments that both lanes share."""
    return [
        "ro",
        f"init={wiring.directory}/init",
        "panic=-1",
        "oops=panic",
        "ignore_loglevel",
        # Tests that keep the console quiet read all of it in the end.
        "log_buf_len=4M",
        # Tests write to their own read-only memory through /proc/self/mem.
        "proc_mem.force_override=always",
        *flavour.arguments(request.lane, request.flavour),
        *request.append.split(),
    ]


def bytes_of(size: str) -> int:
    """`512M` and the like in bytes."""
    factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(size[-1:].upper())
    digits = size[:-1] if factor else size
    if not digits.isdigit():
        raise Failure(f"not a size: {size!r} (write 512M, 2G ...)")
    return int(digits) * (factor or 1)
