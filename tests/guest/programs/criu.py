# SPDX-License-Identifier: GPL-2.0
"""CRIU dumps processes with merged pages, in two steps, and restores them whole."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from lab import (
    HERE, answered, at_full_speed, expect, memory, merging, output, under_merge_any, version_of,
    wait_for,
)  # fmt: skip

MIB = 8
IMAGES = Path("/var/tmp/images")


def start() -> tuple[int, int]:
    """A process in a session of its own, without a terminal: its number, and its memory's address."""
    log = Path("/var/tmp/equal")
    command = under_merge_any(sys.executable, HERE / "equal.py", MIB)
    with log.open("w") as file:
        options = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, stdout=file, start_new_session=True, **options)
    wait_for("it holds memory", lambda: log.read_text().endswith("\n"))
    return process.pid, int(log.read_text())


def digest(pid: int, address: int) -> str:
    return hashlib.sha256(memory(pid, address, MIB << 20)).hexdigest()


def criu(action: str, directory: str, *options: str) -> None:
    (IMAGES / directory).mkdir(parents=True, exist_ok=True)
    common = ("--images-dir", IMAGES / directory, "--log-file", "log", "-v4")
    done = subprocess.run(["criu", action, *map(str, common), *options])
    if done.returncode:
        log = (IMAGES / directory / "log").read_text(errors="replace").splitlines()
        sys.exit("\n".join([f"criu {action} failed", *log[-30:]]))


def main() -> None:
    shutil.rmtree(IMAGES, ignore_errors=True)
    at_full_speed()
    (pid, address), (other, _) = start(), start()
    wait_for("both share", lambda: merging(pid) > 2000 and merging(other) > 2000)
    before, merged = digest(pid, address), merging(pid)
    criu("pre-dump", "first", "--tree", str(pid), "--track-mem")
    criu("dump", "second", "--tree", str(pid), "--track-mem", "--prev-images-dir", "../first")
    os.waitpid(pid, 0)
    criu("restore", "second", "--restore-detached")
    expect("every byte is as it was", digest(pid, address) == before)
    wait_for("the restored process shares again", lambda: merging(pid) > 2000)
    expect("its bytes stay", digest(pid, address) == before)
    again = merging(pid)
    for process in (pid, other):
        os.kill(process, signal.SIGKILL)
    answered(
        "criu",
        version_of("criu"),
        "pre-dump, dump and restore of a process with merged pages",
        f"{merged} merged pages; all {MIB} MiB as before; {again} merged again",
    )
    output("rm", "-r", IMAGES)


main()
