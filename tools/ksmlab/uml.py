# SPDX-License-Identifier: GPL-2.0
"""The `um` lane: User Mode Linux, the kernel as a process, at native speed.

It always has one CPU.  With two, its TLB flush does not reach a process that
runs on the other one, and any KSM corrupts the memory of programs.
"""

import os
import shutil
from pathlib import Path

from .machine import Images, Request, Wiring, boot_arguments, bytes_of
from .say import Failure

OUT_DEVICE = "/dev/ttyS0"
ERR_DEVICE = "/dev/ttyS1"


# The VM's memory is a file. On a CPU the kernel maps all memory by huge pages: here they must be
# asked for, where nobody else sees it.
IN_HUGE_PAGES = """\
mount -t tmpfs -o huge=always,size="$2",mode=700 tmpfs "$1" || exit
export TMPDIR="$1"
shift 2
exec "$@"
"""


def image(build: Path) -> Path:
    return build / "linux"


def arguments(images: Images, request: Request, wiring: Wiring) -> list[str]:
    return [
        *(in_huge_pages(request, wiring) if request.huge_pages else []),
        str(images.kernel),
        f"mem={request.mem}",
        f"uml_dir={wiring.directory}/uml",
        "seccomp=on",
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "console=tty0",
        f"con0=null,fd:{wiring.log.fileno()}",
        *lines(wiring),
        *boot_arguments(request, wiring),
    ]


def in_huge_pages(request: Request, wiring: Wiring) -> list[str]:
    """What to put before a command that has its temporary files in huge pages."""
    place = wiring.directory / "memory"
    place.mkdir()
    # A huge page more, as the last one need not be used to its end.
    size = str(bytes_of(request.mem) + (4 << 20))
    return ["unshare", "--mount", "sh", "-c", IN_HUGE_PAGES, "sh", str(place), size]


def lines(wiring: Wiring) -> list[str]:
    """Our descriptors as serial lines of the VM."""
    if wiring.terminal:
        return [f"ssl0=fd:{wiring.terminal.fileno()}"]
    return [f"ssl0=null,fd:{wiring.out.fileno()}", f"ssl1=null,fd:{wiring.err.fileno()}"]


def environment(request: Request) -> dict[str, str]:
    """The VM's memory is a temporary file: say where there is room for it."""
    for place in ("/dev/shm", os.environ.get("TMPDIR", "/tmp"), "/var/tmp"):
        if os.path.isdir(place) and shutil.disk_usage(place).free > bytes_of(request.mem):
            return {**os.environ, "TMPDIR": place}
    raise Failure(f"no directory for temporary files has {request.mem} free for the VM's memory")
