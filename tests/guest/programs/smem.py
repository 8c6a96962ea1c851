# SPDX-License-Identifier: GPL-2.0
"""smem adds up what processes hold, with what they share divided between them."""

from lab import answered, at_full_speed, equal, expect, merging, output, put, version_of, wait_for

MIB, COUNT = 16, 4


def proportional(pid: int) -> int:
    """What smem says that a process holds: KiB, its part of what is shared."""
    listing = output("smem", "--no-header", "--columns", "pid pss")
    return next(int(line.split()[1]) for line in listing.splitlines() if int(line.split()[0]) == pid)


def main() -> None:
    with equal(MIB, COUNT) as processes:
        before = proportional(processes[0].pid)
        at_full_speed()
        wait_for("all share", lambda: all(merging(one.pid) > 4000 for one in processes))
        put(run=0)
        after = proportional(processes[0].pid)
    saved = (MIB << 10) * (COUNT - 1) // COUNT
    expect("smem sees what is saved", before - after > saved * 0.9, (before, after))
    answered(
        "smem",
        version_of("smem"),
        f"PSS of one of {COUNT} processes that hold the same {MIB} MiB",
        f"{before} KiB before, {after} KiB once merged",
    )


main()
