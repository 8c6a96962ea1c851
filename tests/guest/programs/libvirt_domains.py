# SPDX-License-Identifier: GPL-2.0
"""libvirt's hook of the package puts guests into the domains that their definitions name."""

import shutil
import subprocess
from pathlib import Path

from lab import (
    answered,
    at_full_speed,
    domain,
    expect,
    merging,
    output,
    put,
    scans,
    shared_with,
    version_of,
    wait_for,
)

HOOK = Path("/etc/libvirt/hooks/qemu")
EXAMPLE = "/usr/share/doc/ksm-rs/examples/libvirt-hook"

GUEST = """\
<domain type='qemu'>
  <name>{name}</name>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>48</memory>
  <memoryBacking><allocation mode='immediate'/></memoryBacking>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
</domain>
"""
MARK = "<ksm:domain xmlns:ksm='urn:ksm-rs:domain'>{number}</ksm:domain>"

# Two guests of one tenant, one of another, and one of nobody in particular.
GUESTS = {"web": 17, "mail": 17, "other": 18, "unmarked": None}
PAGES = 48 * 256


def virsh(*words: str | Path) -> str:
    return output("virsh", "--connect", "qemu:///system", *words)


def definition(name: str, number: int | str | None) -> Path:
    metadata = "" if number is None else MARK.format(number=number)
    file = Path(f"/tmp/{name}.xml")
    file.write_text(GUEST.format(name=name, metadata=metadata))
    return file


def start(name: str, number: int | None) -> int:
    virsh("create", definition(name, number), "--paused")
    return int(Path(f"/run/libvirt/qemu/{name}.pid").read_text())


def is_refused() -> bool:
    """A guest whose domain is not one."""
    command = ["virsh", "create", str(definition("wrong", "seventeen"))]
    return subprocess.run(command, capture_output=True).returncode != 0


def main() -> None:
    shutil.copy(EXAMPLE, HOOK)
    HOOK.chmod(0o755)
    Path("/sys/kernel/mm/ksm_rs/domains").write_text("private")
    output("systemctl", "restart", "libvirtd")
    pids = {name: start(name, number) for name, number in GUESTS.items()}
    for name, number in GUESTS.items():
        expect(f"{name} is in its domain", domain(pids[name]) == (number or 0), domain(pids[name]))
    # Most of a new guest's memory is alike.
    put(max_page_sharing=1_000_000)
    at_full_speed()
    wait_for("all guests merge", lambda: min(map(merging, pids.values())) > PAGES // 2)
    scans(3)
    web, mail, other, unmarked = pids.values()
    within = shared_with(web, mail)
    expect("guests of a tenant share", within > PAGES // 2, within)
    pairs = [(web, other), (mail, other), (web, unmarked), (mail, unmarked), (other, unmarked)]
    across = [shared_with(*pair) for pair in pairs]
    expect("and no others", across == [0] * len(pairs), across)
    expect("a guest whose domain cannot be entered does not start", is_refused())
    for name in GUESTS:
        virsh("destroy", name)
    answered(
        "libvirtd, the package's hook",
        version_of("libvirt-daemon-system"),
        "two guests of 48 MiB of tenant 17, one of 18, one unmarked; `domains` private",
        f"{within} pages shared by the two of 17, none by any other pair; "
        "a guest with a wrong number was refused",
    )


main()
