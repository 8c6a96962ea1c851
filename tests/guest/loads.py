# SPDX-License-Identifier: GPL-2.0
"""Starts processes whose memory KSM merges."""

import subprocess
import sys
import time
from contextlib import contextmanager
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


@contextmanager
def holders(count: int, words: list[str]):
    """So many processes that hold memory (holder.py); they end with the block."""
    processes = [start(words) for _ in range(count)]
    yield processes
    for process in processes:
        process.stdin.close()
        process.wait()


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
    (KSM / "run").write_text("0")


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
