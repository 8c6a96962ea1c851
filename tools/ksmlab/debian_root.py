# SPDX-License-Identifier: GPL-2.0
"""A disk with a Debian system on it, in which packages of the kernel and of ksm-rs are installed."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import apt, setup
from .guest import SCRIPTS
from .locks import locked
from .machine import Disk
from .paths import in_cache
from .say import step
from .shell import as_root, logged

SUITE = "trixie"

# The system, and the programs that manage KSM, or whose memory the tests merge.
PACKAGES = (
    *("systemd-sysv", "dbus", "udev", "kmod", "initramfs-tools", "zstd", "procps", "python3"),
    *("apparmor", "ca-certificates", "curl", "iproute2", "e2fsprogs", "tmux", "less", "bc"),
    *("ksmtuned", "libvirt-daemon-system", "libvirt-clients", "libvirt-daemon-driver-qemu"),
    *("qemu-system-x86", "prometheus-node-exporter", "pcp", "stress-ng", "criu", "gdb", "smem"),
    *("redis-server", "redis-tools", "postgresql", "gcc", "libc6-dev", "make", "cargo"),
    *("libstb-dev", "librust-memchr-dev", "systemd-container"),
)

TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "unshare": "util-linux"}

# The first changes the system once its packages are there, the second installs ours.
PREPARE, INSTALL = SCRIPTS / "debian-prepare", SCRIPTS / "debian-install"

# Sparse: it takes on the host what is in it.
DISK_SIZE = "10G"


def ensure(packages: list[Path]) -> Disk:
    """The disk on which these packages are installed."""
    setup.need(TOOLS)
    with locked("debian"):
        archive = base()
        disk = Disk(in_cache("debian", f"disk-{key(archive.name, INSTALL, *packages)}"))
        if not disk.directory.exists():
            drop_earlier(disk)
            build(archive, packages, disk)
    return disk


def key(*parts: str | Path) -> str:
    """A short name for texts, and for what is in files."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.read_bytes() if isinstance(part, Path) else part.encode())
    return digest.hexdigest()[:12]


def drop_earlier(disk: Disk) -> None:
    """Disks of earlier packages, but for the last one: each takes gigabytes."""
    disks = disk.directory.parent.glob("disk-*")
    for old in sorted(disks, key=lambda old: old.stat().st_mtime)[:-1]:
        shutil.rmtree(old)


def base() -> Path:
    """The archive of a system with all packages but the kernel and ksm-rs."""
    archive = in_cache("debian", f"{SUITE}-{key(SUITE, *PACKAGES, PREPARE)}.tar")
    if not archive.exists():
        partial = archive.with_suffix(".partial.tar")
        with step(f"making a system of {SUITE} with {len(PACKAGES)} packages (5 to 15 minutes)"):
            logged("mmdebstrap", *as_root("mmdebstrap", *bootstrap(partial)))
        for old in set(archive.parent.glob("*.tar")) - {partial}:
            old.unlink()
        partial.rename(archive)
    return archive


def bootstrap(archive: Path) -> list[str]:
    """Arguments of mmdebstrap."""
    mirror = apt.mirror()
    return [
        "--mode=root",
        "--variant=apt",
        f"--include={','.join(PACKAGES)}",
        f'--customize-hook=chroot "$1" sh -s < {PREPARE}',
        SUITE,
        str(archive),
        f"deb [signed-by={mirror.keyring}] {mirror.uri} {SUITE} main",
    ]


def build(archive: Path, packages: list[Path], disk: Disk) -> None:
    with (
        step("installing the kernel and ksm-rs on the disk (2 minutes)"),
        tempfile.TemporaryDirectory(dir=disk.directory.parent) as scratch,
    ):
        root, partial = Path(scratch, "root"), Disk(Path(scratch, "disk"))
        for directory in (root, partial.directory):
            directory.mkdir()
        install(archive, packages, root)
        for name, file in (("vmlinuz", partial.kernel), ("initrd.img", partial.initrd)):
            shutil.copy(newest(root / "boot", name), file)
        make_file_system(partial.image, DISK_SIZE, "ksm-root", root)
        partial.directory.rename(disk.directory)


def install(archive: Path, packages: list[Path], root: Path) -> None:
    logged("debian", *as_root("tar", "--numeric-owner", "-C", str(root), "-xpf", str(archive)))
    inside = root / "var/tmp/packages"
    inside.mkdir()
    for package in packages:
        shutil.copy(package, inside)
    shutil.copy(INSTALL, inside)
    # Mounts of its own, which end with the program.
    command = ("unshare", "--mount", "sh", inside / INSTALL.name, root)
    logged("debian", *as_root(*map(str, command)))
    shutil.rmtree(inside)


def newest(boot: Path, name: str) -> Path:
    return max(boot.glob(f"{name}-*"), key=lambda file: file.stat().st_mtime)


def make_file_system(image: Path, size: str, label: str, contents: Path) -> None:
    options = ("-q", "-t", "ext4", "-L", label, "-E", "root_owner=0:0", "-d", str(contents))
    logged("debian", *as_root("mke2fs", *options, str(image), size))


def read_file(image: Path, inside: str, into: Path) -> None:
    """Copies a file, if it is there, of a file system that is not mounted."""
    debugfs(image, f'dump "{inside}" "{into}"')


def read_directory(image: Path, inside: str, into: Path) -> None:
    """Copies a directory, which keeps its name."""
    debugfs(image, f'rdump "{inside}" "{into}"')


def debugfs(image: Path, request: str) -> None:
    environment = {**os.environ, "PATH": setup.PATH}
    command = ["debugfs", "-R", request, str(image)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
