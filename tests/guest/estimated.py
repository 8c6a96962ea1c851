# SPDX-License-Identifier: GPL-2.0
"""Prints what `ksm estimate` says of some processes, and what KSM then saves.

Arguments: the command ksm; the number of processes; their arguments (holder.py).
"""

import json
import subprocess
import sys
import time
from pathlib import Path

KSM = Path("/sys/kernel/mm/ksm")
HOLDER = Path(__file__).with_name("holder.py")


def read(name: str) -> int:
    return int((KSM / name).read_text())


def start(words: list[str]) -> subprocess.Popen:
    command = [sys.executable, HOLDER, *words]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


def merge() -> None:
    """Scan until a scan has merged nothing more."""
    for name, value in (("smart_scan", 0), ("pages_to_scan", 100000), ("sleep_millisecs", 0)):
        (KSM / name).write_text(str(value))
    (KSM / "run").write_text("1")
    before = -1
    while before != read("pages_sharing"):
        before, scans = read("pages_sharing"), read("full_scans")
        while read("full_scans") < scans + 3:
            time.sleep(0.05)


def main() -> None:
    command, count, *words = sys.argv[1:]
    holders = [start(words) for _ in range(int(count))]
    pids = [str(holder.pid) for holder in holders]
    told = subprocess.run(
        [command, "--json", "estimate", "--advised", "--max-cpu", "100", *pids],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    merge()
    print(json.dumps({"estimate": json.loads(told), "saved": read("pages_sharing")}))
    for holder in holders:
        holder.stdin.close()
        holder.wait()


main()
