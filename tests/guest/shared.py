# SPDX-License-Identifier: GPL-2.0
"""Prints what `ksm sharing` says of merged processes, and what their page tables say.

Arguments: the command ksm; the number of processes; their arguments (holder.py).
"""

import json
import struct
import sys
from collections import Counter

from loads import holders, merge, output, read

PAGE = 4096
PRESENT = 1 << 63
FRAME = (1 << 55) - 1
KSM = 1 << 21


def entries(path: str, first: int, count: int) -> list[int]:
    with open(path, "rb") as file:
        file.seek(first * 8)
        read = file.read(count * 8)
    return list(struct.unpack(f"{len(read) // 8}Q", read))


def frames(pid: int) -> Counter:
    """How often each frame that KSM shares is mapped by a process, page by page."""
    found: Counter = Counter()
    with open(f"/proc/{pid}/maps") as maps:
        ranges = [line.split()[0].split("-") for line in maps if "vsyscall" not in line]
    for start, end in ranges:
        first, count = int(start, 16) // PAGE, (int(end, 16) - int(start, 16)) // PAGE
        for entry in entries(f"/proc/{pid}/pagemap", first, count):
            frame = entry & FRAME
            if entry & PRESENT and frame and entries("/proc/kpageflags", frame, 1)[0] & KSM:
                found[frame] += 1
    return found


def main() -> None:
    command, count, *words = sys.argv[1:]
    with holders(int(count), words) as processes:
        merge()
        pids = [process.pid for process in processes]
        told = json.loads(output(command, "--json", "sharing", *map(str, pids)))
        drawing = "/tmp/sharing.svg"
        lines = output(command, "sharing", "--svg", drawing)
        by_process = {pid: frames(pid) for pid in pids}
        all_frames = sum(by_process.values(), Counter())
        seen = {
            "frames": len(all_frames),
            "pages": all_frames.total(),
            "processes": {str(pid): found.total() for pid, found in by_process.items()},
            "common": (by_process[pids[0]] & by_process[pids[1]]).total(),
        }
        counted = {"shared": read("pages_shared"), "sharing": read("pages_sharing")}
        with open(drawing) as file:
            svg = file.read()
        told = {"told": told, "seen": seen, "counted": counted, "pids": pids}
        print(json.dumps({**told, "lines": lines, "svg": svg}))


main()
