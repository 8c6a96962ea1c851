# SPDX-License-Identifier: GPL-2.0
"""Prints what `ksm why` says of a merged process, and of one without advice, and what smaps counts.

Arguments: the command ksm; the number of processes; their arguments (holder.py).
"""

import json
import subprocess
import sys
from pathlib import Path

from loads import holders, merge, output

PAGE_KIB = 4


def counted(pid: int) -> dict[str, int]:
    """Pages of a process, from the sums that the kernel keeps."""
    sums: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Swap", "KSM") and value.endswith("kB"):
            sums[name] = sums.get(name, 0) + int(value.split()[0]) // PAGE_KIB
    return sums


def main() -> None:
    command, count, *words = sys.argv[1:]
    with holders(int(count), words) as processes, subprocess.Popen(["sleep", "600"]) as other:
        merge()
        pids = [processes[0].pid, other.pid]
        told = [json.loads(output(command, "--json", "why", str(pid))) for pid in pids]
        lines = output(command, "why", str(pids[0]))
        print(json.dumps({"told": told, "counted": [*map(counted, pids)], "lines": lines}))
        other.kill()


main()
