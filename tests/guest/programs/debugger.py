# SPDX-License-Identifier: GPL-2.0
"""gdb writes into a merged page of one process only, and a core dump holds merged pages whole."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from lab import (
    HERE, answered, at_full_speed, expect, memory, merging, output, under_merge_any, version_of,
    wait_for,
)  # fmt: skip

MIB = 8
CORE, COPY = Path("/var/tmp/core"), Path("/var/tmp/copy")


def gdb(*commands: str, of: tuple[str, ...] = ()) -> str:
    words = [word for command in commands for word in ("--eval-command", command)]
    return output("gdb", "--batch", "--nx", *words, *of, stderr=subprocess.STDOUT)


def start() -> tuple[subprocess.Popen, int]:
    command = under_merge_any(sys.executable, HERE / "equal.py", MIB)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/var/tmp")
    return process, int(process.stdout.readline())


def main() -> None:
    at_full_speed()
    Path("/proc/sys/kernel/core_pattern").write_text(str(CORE))
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    (one, address), (two, there) = start(), start()
    wait_for("both share", lambda: merging(one.pid) > 2000 and merging(two.pid) > 2000)

    before = memory(two.pid, there, MIB << 20)
    new = (before[0] + 1) % 256
    told = gdb(f"set *(unsigned char *){address:#x} = {new}", of=("-p", str(one.pid)))
    expect("gdb wrote", memory(one.pid, address, 1)[0] == new, told)
    expect("nobody else's byte has changed", memory(two.pid, there, MIB << 20) == before)

    wanted = memory(one.pid, address, MIB << 20)
    merged = merging(one.pid)
    one.send_signal(signal.SIGQUIT)
    expect("it dumped core", os.WCOREDUMP(os.waitpid(one.pid, 0)[1]))
    dump = f"dump binary memory {COPY} {address:#x} {address + (MIB << 20):#x}"
    told = gdb(dump, of=(os.path.realpath(sys.executable), str(CORE)))
    expect("the core has each byte", COPY.read_bytes() == wanted, told)
    two.kill()
    answered(
        "gdb",
        version_of("gdb"),
        "a byte written into a merged page; a core dump of a process with merged pages",
        f"one process sees it, the other does not; {merged} merged pages whole in the core",
    )


main()
