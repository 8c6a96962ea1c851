# SPDX-License-Identifier: GPL-2.0
"""The `debian` lane: a Debian system on a disk of its own, in QEMU, as an administrator installs it.

Debian's kernels do not know the file system by which the lean ones see the host. A second disk
takes the command into the VM, and its results out of it.
"""

import os
import shlex
import shutil
from contextlib import contextmanager
from pathlib import Path

from . import debian_root, guest, programs, qemu
from .machine import Images, Request, Wiring
from .paths import REPO

OUT_DEVICE, ERR_DEVICE = qemu.OUT_DEVICE, qemu.ERR_DEVICE

# Sparse.
RUN_SIZE = "4G"

# No ordinary boot runs a command.
TARGET = "systemd.unit=ksm-lab.target"

# What guest/debian-run tells the host.
REPORTS = ("status", "taint")


def run_disk(directory: Path) -> Path:
    return directory / "run.raw"


@contextmanager
def shared(directory: Path, request: Request):
    """Inside, the run has its disk; afterwards the host has what came of it."""
    share = request.share or directory / "share"
    share.mkdir(exist_ok=True)
    make_run_disk(directory, request, share)
    yield
    disk = run_disk(directory)
    for report in REPORTS:
        debian_root.read_file(disk, f"/{report}", directory / report)
    results = directory / "results"
    results.mkdir()
    debian_root.read_directory(disk, "/share", results)
    # A VM that ended before its command did may not have written it.
    if (results / "share").exists():
        shutil.copytree(results / "share", share, symlinks=True, dirs_exist_ok=True)


def make_run_disk(directory: Path, request: Request, share: Path) -> None:
    contents = directory / "contents"
    contents.mkdir()
    more = {
        "tests": REPO / "tests",
        "programs": programs.directory(),
        "loaded": "yes" if request.insmod else "no",
    }
    with open(directory / "settings", "a") as settings:
        for name, value in more.items():
            settings.write(f"{name}={shlex.quote(str(value))}\n")
    for file in ("settings", "command", "lines"):
        shutil.copy(directory / file, contents)
    shutil.copy(guest.SCRIPTS / "debian-run", contents)
    shutil.copytree(share, contents / "share")
    shutil.copytree(REPO / "tests", contents / "tests", ignore=shutil.ignore_patterns("target"))
    copy_programs(contents / "programs")
    debian_root.make_file_system(run_disk(directory), RUN_SIZE, "ksm-run", contents)
    shutil.rmtree(contents)


def copy_programs(into: Path) -> None:
    into.mkdir()
    for file in programs.directory().iterdir():
        if file.is_file() and os.access(file, os.X_OK):
            shutil.copy(file, into)


def drive(name: str, path: Path, *options: str) -> list[str]:
    """The disks of the VM, vda and vdb, in order."""
    words = (f"file={path}", "format=raw", "if=none", f"id={name}", *options)
    return ["-drive", ",".join(words), "-device", f"virtio-blk-pci,drive={name}"]


def arguments(images: Images, request: Request, wiring: Wiring) -> list[str]:
    disk = images.disk
    # A panic ends the VM.
    machine = ("ro", "console=ttyS0", "panic=-1", qemu.CLOCK)
    kernel_arguments = ("root=LABEL=ksm-root", *machine, TARGET)
    return [
        *qemu.machine(request, wiring),
        # Each run finds the disk as it was after the packages had been installed.
        *drive("root", disk.image, "snapshot=on"),
        *drive("run", run_disk(wiring.directory)),
        *("-kernel", str(disk.kernel), "-initrd", str(disk.initrd)),
        *("-append", " ".join((*kernel_arguments, *request.append.split()))),
    ]


def environment(request: Request) -> dict[str, str]:
    return qemu.environment(request)
