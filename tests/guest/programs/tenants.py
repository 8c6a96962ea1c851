# SPDX-License-Identifier: GPL-2.0
"""Units and containers of tenants share memory within a tenant's domain alone."""

import subprocess
import sys
from pathlib import Path

from lab import (
    HERE,
    answered,
    at_full_speed,
    domain,
    expect,
    merging,
    output,
    scans,
    shared_with,
    under_merge_any,
    version_of,
    wait_for,
)

UNIT = Path("/etc/systemd/system/tenant@.service")
EXAMPLE = Path("/usr/share/doc/ksm-rs/examples/tenant@.service")
MIB = 8
ERRORS = Path("/tmp/container")

# Two units of tenant 17, and one of tenant 18.
UNITS = {"tenant@17": 17, "tenant-more@17": 17, "tenant@18": 18}

# The container's root could choose its own domain with this capability.
CONTAINER = (
    *("systemd-nspawn", "--quiet", "--console=pipe", "--machine=tenant"),
    *("--directory=/", "--volatile=overlay", f"--bind-ro={HERE}"),
    "--drop-capability=CAP_SYS_RESOURCE",
)


def install() -> None:
    """The unit of the package, with a program that holds memory in place of its own."""
    holder = f"{sys.executable} {HERE / 'equal.py'} {MIB}"
    text = EXAMPLE.read_text().replace("/usr/bin/sleep infinity", holder)
    expect("the example names its program", holder in text, text)
    for name in ("tenant@", "tenant-more@"):
        UNIT.with_name(f"{name}.service").write_text(text)
    output("systemctl", "daemon-reload")


def main_process(unit: str) -> int:
    return int(output("systemctl", "show", "--value", "--property=MainPID", unit))


def container() -> int:
    """A container of tenant 18, and the process in it that holds memory."""
    # systemd-nspawn has no option for merge-any, so its container inherits that.
    holder = f"exec {sys.executable} {HERE / 'equal.py'} {MIB}"
    inside = ("sh", "-c", f"/bin/echo 17 > /proc/$$/ksm_domain; {holder}")
    command = ("ksm-domain", "18", "--", *under_merge_any(*CONTAINER, *inside))
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.Popen(command, **quiet, stderr=ERRORS.open("w"))

    def found() -> list[int]:
        text = subprocess.run(["pgrep", "-f", f"^{sys.executable} .*equal.py"], capture_output=True)
        pids = map(int, text.stdout.split())
        return [pid for pid in pids if "machine" in Path(f"/proc/{pid}/cgroup").read_text()]

    wait_for("the container's process", found)
    return found()[0]


def main() -> None:
    install()
    for unit in UNITS:
        output("systemctl", "start", unit)
    pids = {unit: main_process(unit) for unit in UNITS}
    at_full_speed()
    wait_for("the units of a tenant share", lambda: merging(pids["tenant-more@17"]) > 2000)
    pids["container"] = container()
    wait_for("the container shares, too", lambda: merging(pids["container"]) > 2000)
    scans(3)
    for unit, number in {**UNITS, "container": 18}.items():
        expect(f"{unit} is in {number}", domain(pids[unit]) == number)
    refused = ERRORS.read_text()
    expect("the container cannot leave its domain", "ot permitted" in refused, refused)
    one, more, other, inside = pids.values()
    within = [shared_with(one, more), shared_with(other, inside)]
    across = [shared_with(mine, theirs) for mine in (one, more) for theirs in (other, inside)]
    expect("tenants share within", min(within) > 2000, within)
    expect("and with nobody else", across == [0] * 4, across)
    capabilities = Path(f"/proc/{one}/status").read_text()
    expect("the program has no capability", "CapBnd:\t0000000000000000" in capabilities, capabilities)
    answered(
        "systemd, systemd-nspawn",
        version_of("systemd"),
        "two units of tenant 17, a unit and a container of tenant 18, equal memory",
        f"{within[0]} pages shared by the two of 17, {within[1]} by the two of 18, none across; "
        "the container could not choose its domain",
    )


main()
