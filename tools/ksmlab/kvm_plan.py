# SPDX-License-Identifier: GPL-2.0
"""What a VM runs that is a host itself, and what it needs for that."""

from . import kernel, setup
from .flavour import ORDINARY

# The lane whose kernel has KVM.
LANE = "x86"

# With less than 512 MiB the kernel turns huge pages off.
MACHINE = {"mem": "1G", "cpus": 2}

# Where QEMU's guests run: with page tables of KVM's own. With nested ones, QEMU 7.2, which emulates
# the VM, writes to wrong pages or loses timers while guests boot, whichever KSM waits for them.
QEMU_MACHINE = {**MACHINE, "append": "kvm_amd.npt=0"}


def build() -> kernel.Kernel:
    """Whose kernel guests hold or boot: the same one, whichever KSM the host has."""
    return kernel.of(LANE, "c", ORDINARY, setup.tools())


def guests(*options: str) -> list[str]:
    """Guests of our own making, which hold half of a kernel and half of files."""
    return ["ksm-kvm", "guests", "--kernel", str(build().build / "vmlinux"), *options]


def qemu(*options: str) -> list[str]:
    """Guests that run Linux in QEMU."""
    return ["ksm-kvm", "qemu", "--kernel", str(build().image), *options]
