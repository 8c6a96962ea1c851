# SPDX-License-Identifier: GPL-2.0
"""The `x86` lane: x86-64 in QEMU, emulated, with NUMA, THP and hotplug.

Hardware acceleration is left alone: where a machine is itself a VM, /dev/kvm
may exist and yet hang a guest for ever.
"""

import os
from pathlib import Path

from .machine import Images, Request, Wiring, boot_arguments, bytes_of

OUT_DEVICE = "/dev/hvc0"
ERR_DEVICE = "/dev/hvc1"

# The other one, `pc`, computes its table of interrupts in a loop of ACPI's language,
# which takes the kernel's interpreter ten seconds, and a debug kernel's a minute.
MACHINE = "q35"

# Nobody needs to watch the time stamp counter, which is the host's. A kernel that does
# waits for another CPU with interrupts off, while booting by the clock that only they
# advance: one boot in 200 never ended.
CLOCK = "tsc=reliable"


def image(build: Path) -> Path:
    return build / "arch/x86/boot/bzImage"


def accelerator(request: Request) -> list[str]:
    """Emulation; if instructions are counted, each takes one nanosecond of the VM's time."""
    if request.icount:
        return ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]
    return ["-accel", "tcg,thread=multi"]


def processors(request: Request) -> str:
    """Each a socket of its own if there are nodes: no socket may lie in two."""
    return f"{request.cpus},sockets={request.cpus if request.numa > 1 else 1}"


def memory(request: Request) -> list[str]:
    """One memory backend a node; the CPUs are dealt out in turn."""
    share = bytes_of(request.mem) // request.numa
    if request.numa == 1:
        return ["-m", f"{share >> 20}M"]
    options = ["-m", f"{(share >> 20) * request.numa}M"]
    for node in range(request.numa):
        cpus = [f"cpus={cpu}" for cpu in range(node, request.cpus, request.numa)]
        options += ["-object", f"memory-backend-ram,id=ram{node},size={share >> 20}M"]
        options += ["-numa", ",".join(["node", f"nodeid={node}", f"memdev=ram{node}", *cpus])]
    return options


def directory(tag: str, path: Path | str) -> list[str]:
    """Offer a directory of the host to the VM."""
    quoted = str(path).replace(",", ",,")
    return [
        "-fsdev",
        f"local,id={tag},path={quoted},security_model=none,multidevs=remap",
        "-device",
        f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
    ]


def console(name: str, backend: str) -> list[str]:
    """A console of the VM: hvc0, hvc1 and so on, in order."""
    return ["-chardev", f"{backend},id={name}", "-device", f"virtconsole,chardev={name}"]


def consoles(wiring: Wiring) -> list[str]:
    if wiring.terminal:
        return console("terminal", f"socket,fd={wiring.terminal.fileno()}")
    files = (("out", wiring.out), ("err", wiring.err))
    return [word for name, file in files for word in console(name, f"file,path={file.name}")]


def machine(request: Request, wiring: Wiring) -> list[str]:
    """The command line, but for what is booted and the file systems."""
    return [
        "qemu-system-x86_64",
        *("-machine", MACHINE),
        *accelerator(request),
        *("-cpu", "max", "-smp", processors(request)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *memory(request),
        *("-chardev", f"file,id=log,path={wiring.log.name},append=on", "-serial", "chardev:log"),
        *("-device", "virtio-serial-pci"),
        *consoles(wiring),
    ]


def arguments(images: Images, request: Request, wiring: Wiring) -> list[str]:
    root = "version=9p2000.L,trans=virtio,access=any,msize=262144,cache=loose"
    kernel_arguments = [
        "root=root",
        "rootfstype=9p",
        f"rootflags={root}",
        "console=ttyS0",
        CLOCK,
        *boot_arguments(request, wiring),
    ]
    return [
        *machine(request, wiring),
        *directory("root", "/"),
        *directory("vm", wiring.directory),
        *(directory("share", request.share) if request.share else []),
        *("-kernel", str(images.kernel), "-append", " ".join(kernel_arguments)),
    ]


def environment(request: Request) -> dict[str, str]:
    return dict(os.environ)
