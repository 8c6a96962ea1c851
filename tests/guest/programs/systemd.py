# SPDX-License-Identifier: GPL-2.0
"""`MemoryKSM=yes` makes all memory of a unit mergeable, and stays so when systemd starts anew."""

import sys
from pathlib import Path

from lab import HERE, answered, at_full_speed, expect, merging, output, version_of, wait_for


def start(unit: str, *properties: str) -> int:
    """Starts a unit that holds memory, and returns its process."""
    options = [f"--property={text}" for text in properties]
    command = (sys.executable, HERE / "equal.py", "8")
    output("systemd-run", f"--unit={unit}", *options, *command)
    return int(output("systemctl", "show", "--value", "--property=MainPID", unit))


def merges(pid: int) -> bool:
    return merging(pid) > 2000


def main() -> None:
    at_full_speed()
    one, two = (start(unit, "MemoryKSM=yes") for unit in ("one", "two"))
    wait_for("both units share", lambda: merges(one) and merges(two))
    plain = start("plain")
    output("systemctl", "daemon-reexec")
    three = start("three", "MemoryKSM=yes")
    wait_for("a unit that is started later shares", lambda: merges(three))
    expect("units go on sharing", merges(one) and merges(two))
    expect("a unit without MemoryKSM does not share", merging(plain) == 0)
    state = Path(f"/proc/{one}/ksm_stat").read_text()
    expect("the kernel says why", "ksm_merge_any: yes" in state, state)
    answered(
        "systemd",
        version_of("systemd"),
        "MemoryKSM=yes in three units, daemon-reexec between them",
        f"{merging(one)}, {merging(two)} and {merging(three)} pages merged, "
        f"{merging(plain)} in a unit without it",
    )


main()
