# SPDX-License-Identifier: GPL-2.0
"""libvirt sets and shows the host's KSM, and its guests merge unless their definition forbids it."""

import re
from pathlib import Path

from lab import answered, expect, get, given_up, merging, output, put, scans, version_of, wait_for

DOMAIN = """\
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <memoryBacking>{backing}<allocation mode='immediate'/></memoryBacking>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
</domain>
"""


PAGES = 16384


def shared_pages(pid: int) -> int:
    return given_up(pid, PAGES)


def virsh(*words: str | Path) -> str:
    return output("virsh", "--connect", "qemu:///system", *words)


def start(name: str, backing: str = "") -> int:
    definition = Path(f"/tmp/{name}.xml")
    definition.write_text(DOMAIN.format(name=name, backing=backing))
    virsh("create", definition, "--paused")
    return int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())


def parameters() -> dict[str, int]:
    found = re.findall(r"^\s*(\w+)\s+(\d+)$", virsh("node-memory-tune"), re.M)
    return {name: int(value) for name, value in found}


def main() -> None:
    put(smart_scan=0)
    output("systemctl", "start", "libvirtd")
    virsh("node-memory-tune", "--shm-pages-to-scan", "2500", "--shm-sleep-millisecs", "5")
    expect("virsh sets both", (get("pages_to_scan"), get("sleep_millisecs")) == (2500, 5))
    put(run=1)
    guests = [start("first"), start("second")]
    private = start("private", "<nosharepages/>")
    wait_for("guests share", lambda: min(map(shared_pages, guests)) > PAGES // 2)
    scans(2)
    put(run=0)
    shown = parameters()
    for name in ("pages_shared", "pages_sharing", "full_scans"):
        expect(f"virsh shows {name}", shown[f"shm_{name}"] == get(name), shown)
    expect("virsh shows its own settings", shown["shm_pages_to_scan"] == 2500, shown)
    shared, kept = sum(map(shared_pages, guests)), shared_pages(private)
    # QEMU has memory of its own as well.
    expect("<nosharepages/> holds", kept <= 0 == merging(private), kept)
    statistics = virsh("nodememstats")
    expect("virsh tells of the host's memory", "free" in statistics, statistics)
    for name in ("first", "second", "private"):
        virsh("destroy", name)
    answered(
        "virsh, libvirtd",
        version_of("libvirt-daemon-system"),
        "node-memory-tune; two guests of 64 MiB, and one with <nosharepages/>",
        f"{shared} pages of the two are shared, 0 of the third; it shows shm_pages_shared "
        f"{shown['shm_pages_shared']}, shm_pages_sharing {shown['shm_pages_sharing']}",
    )


main()
