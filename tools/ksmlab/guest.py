# SPDX-License-Identifier: GPL-2.0
"""What the VM's first program, guest/init, reads: its settings and mounts."""

import os
import shlex
import shutil
from pathlib import Path

from . import programs
from .machine import Images, Request
from .paths import REPO, cache

SCRIPTS = REPO / "tools/ksmlab/guest"

# Kernel file systems, and memory for everything that a program may write to.
MOUNTS = """\
sysfs /sys sysfs
devtmpfs /dev devtmpfs
devpts /dev/pts devpts X-mount.mkdir
tmpfs /dev/shm tmpfs X-mount.mkdir
cgroup2 /sys/fs/cgroup cgroup2
debugfs /sys/kernel/debug debugfs
tmpfs /mnt tmpfs mode=755
/ /mnt/root none bind,X-mount.mkdir
tmpfs /tmp tmpfs mode=1777
tmpfs /var/tmp tmpfs mode=1777
tmpfs /run tmpfs mode=755
tmpfs /run/lock tmpfs mode=1777,X-mount.mkdir
"""

# Directories that those mounts hide.
HIDDEN = tuple(map(Path, ("/tmp", "/var/tmp", "/run", "/mnt", "/dev", "/proc", "/sys")))

# User Mode Linux takes the host's directory as an option of the mount, but
# which one depends on the age of the mount program.  Without options it shows
# all of the host, from where directories can be bound.
UM_HOST = "none /mnt/host hostfs X-mount.mkdir\n"


def prepare(directory: Path, request: Request, images: Images, devices: tuple[str, str]) -> None:
    """Write all of it into the directory of a run."""
    (directory / "settings").write_text(settings(request, images, devices))
    (directory / "mounts").write_text(mounts(directory, request))
    (directory / "command").write_text(command(request))
    for script in ("init", "lines"):
        shutil.copy(SCRIPTS / script, directory)
    if images.module:
        shutil.copy(images.module, directory / "ksm_rs.ko")
    if images.lockup:
        shutil.copy(images.lockup, directory / "test_lockup.ko")


def settings(request: Request, images: Images, devices: tuple[str, str]) -> str:
    size = os.get_terminal_size() if request.terminal else os.terminal_size((80, 24))
    out, err = devices
    values = {
        "lane": request.lane,
        "insmod": "yes" if images.module and request.insmod else "no",
        "parameters": request.parameters,
        "terminal": "yes" if request.terminal else "no",
        "rows": size.lines,
        "cols": size.columns,
        "out": out,
        "err": err,
    }
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())


def mounts(directory: Path, request: Request) -> str:
    shown = [host_directory(request.lane, "vm", directory, "/run/host")]
    if request.share:
        shown.append(host_directory(request.lane, "share", request.share, "/mnt/share"))
    uncovered = [bind(Path(f"/mnt/root{path}"), str(path)) for path in to_uncover()]
    return MOUNTS + (UM_HOST if request.lane == "um" else "") + "".join(shown + uncovered)


def host_directory(lane: str, tag: str, path: Path, at: str) -> str:
    """The line that shows a directory of the host, writable."""
    if lane == "um":
        return bind(Path(f"/mnt/host{path}"), at)
    options = "trans=virtio,version=9p2000.L,access=any,msize=262144,cache=mmap"
    return f"{tag} {at} 9p {options},X-mount.mkdir\n"


def bind(path: Path, at: str) -> str:
    return f"{escaped(str(path))} {escaped(at)} none bind,X-mount.mkdir\n"


def escaped(path: str) -> str:
    """As fstab wants it."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\#" else char for char in path)


def to_uncover() -> list[Path]:
    """Directories that commands use and that the VM's own mounts would hide."""
    wanted = dict.fromkeys([REPO, cache(), Path.cwd()])
    return [path for path in wanted if any(path.is_relative_to(top) for top in HIDDEN)]


def command(request: Request) -> str:
    term = os.environ.get("TERM", "dumb") if request.terminal else "dumb"
    return "\n".join(
        [
            f"export HOME=/tmp TERM={shlex.quote(term)} LANG=C.UTF-8",
            f"export PATH={shlex.quote(str(programs.directory()))}:$PATH",
            f"cd {shlex.quote(os.getcwd())} 2>/dev/null || cd /",
            f"exec {shlex.join(request.command)}",
            "",
        ]
    )
