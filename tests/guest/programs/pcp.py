# SPDX-License-Identifier: GPL-2.0
"""Performance Co-Pilot's agent for Linux reads KSM's counters."""

import re

from lab import answered, at_full_speed, equal, expect, get, output, put, scans, version_of

NAMES = ("run_state", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile")


def main() -> None:
    output("systemctl", "start", "pmcd")
    at_full_speed()
    with equal():
        scans(3)
        put(run=0)
        told = output("pminfo", "--fetch", "mem.ksm")
        found = {
            name: int(value) for name, value in re.findall(r"mem\.ksm\.(\w+)\n\s+value (\d+)", told)
        }
        for name in NAMES:
            expect(f"mem.ksm.{name} is the kernel's", found.get(name) == of_kernel(name), told)
    answered(
        "pcp",
        version_of("pcp"),
        "pminfo --fetch mem.ksm",
        ", ".join(f"{name} {found[name]}" for name in NAMES),
    )


def of_kernel(name: str) -> int:
    return get("run" if name == "run_state" else name)


main()
