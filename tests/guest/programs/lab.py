# SPDX-License-Identifier: GPL-2.0
"""What the scripts of this folder share. Each uses one real program, as its users do, on a host
whose memory KSM merges; it ends with an error, or prints a line for the table of the tests.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

KSM = Path("/sys/kernel/mm/ksm")
HERE = Path(__file__).parent
PAGE = 4096


def output(*command: str | Path, **options) -> str:
    """The standard output of a program that must succeed."""
    words = list(map(str, command))
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def get(name: str) -> int:
    return int((KSM / name).read_text())


def put(**values: int) -> None:
    for name, value in values.items():
        (KSM / name).write_text(str(value))


def at_full_speed() -> None:
    put(smart_scan=0, sleep_millisecs=0, pages_to_scan=10000, run=1)


def merging(pid: int) -> int:
    """Pages of a process that KSM has merged."""
    return int(Path(f"/proc/{pid}/ksm_merging_pages").read_text())


def domain(pid: int) -> int:
    """The KSM domain of a process."""
    return int(Path(f"/proc/{pid}/ksm_domain").read_text())


def shared_with(pid: int, other: int) -> int:
    """Pages that KSM has two processes share, by their page frames."""
    told = json.loads(output("ksm", "--json", "sharing", str(pid), str(other)))
    return sum(pair["common"] for pair in told["pairs"])


def given_up(pid: int, pages: int) -> int:
    """Of so many private pages, those that the process does not have for itself.

    A zero-filled huge page that mm/ksm.c splits gets zero pages that KSM does not count.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    kib = next(line for line in status.splitlines() if line.startswith("RssAnon:")).split()[1]
    return merging(pid) + pages - int(kib) * 1024 // PAGE


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds:g} s in vain: {what}")
        time.sleep(0.2)


def expect(what: str, holds: bool, seen: object = "") -> None:
    if not holds:
        sys.exit(f"not so: {what}\n{seen}")


def scans(count: int) -> None:
    """Wait for so many whole scans."""
    end = get("full_scans") + count
    wait_for(f"{count} full scans", lambda: get("full_scans") >= end)


def estimate_and_saved(pid: int) -> tuple[int, int]:
    """What `ksm estimate` expects to be saved of a process, and what KSM, which is off, then saves."""
    told = output("ksm", "--json", "estimate", "--advised", "--max-cpu", "100", str(pid))
    before = get("pages_sharing")
    at_full_speed()
    saved = -1
    while saved != get("pages_sharing"):
        saved = get("pages_sharing")
        scans(3)
    return json.loads(told)["saved"], saved - before


def expect_estimate(estimate: int, saved: int) -> str:
    """Fails if they differ by more than 2 %; returns both, to be shown."""
    expect("the estimate is right", abs(estimate - saved) <= saved * 0.02, (estimate, saved))
    return f"ksm estimate {estimate} pages, saved {saved}"


@contextmanager
def equal(mib: int = 8, count: int = 2):
    """Processes that hold the same memory (equal.py); they end with the block."""
    command = under_merge_any(sys.executable, HERE / "equal.py", mib)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in processes:
            process.stdout.readline()
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def under_merge_any(*command: str | Path) -> list[str]:
    """The command line of a program all of whose memory is mergeable."""
    return [sys.executable, str(HERE / "merge_any.py"), *map(str, command)]


def memory(pid: int, address: int, length: int = PAGE) -> bytes:
    with open(f"/proc/{pid}/mem", "rb") as file:
        return os.pread(file.fileno(), length, address)


def answered(program: str, version: str, asked: str, answer: str) -> None:
    """A line of the table: it is printed when all else has been checked."""
    print(json.dumps([program, version, asked, answer]))


def version_of(package: str) -> str:
    return output("dpkg-query", "-W", "-f", "${Version}", package)
