# SPDX-License-Identifier: GPL-2.0
"""Prints what `ksm top` shows of merged processes: on a terminal, in lines, and as JSON.

Arguments: the command ksm; the number of processes; their arguments (holder.py).
"""

import ctypes
import json
import os
import pty
import select
import struct
import fcntl
import sys
import termios
import time

from loads import holders, merge, output, read

PR_SET_NAME = 15

# It would end a word of /proc/PID/stat, move the cursor, and is no UTF-8.
NAME = b") x\x1b[2J\xff\n"

SIZE = struct.pack("4H", 30, 120, 0, 0)


def screen(*command: str) -> tuple[str, int]:
    """What a program writes to a terminal, and its exit status; it is asked to sort, and to quit."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, SIZE)
    written = wait_for(terminal, b"merged")
    os.write(terminal, b"n")
    written += wait_for(terminal, b"by name")
    os.write(terminal, b"q")
    written += wait_for(terminal, b"\0 nothing that it writes")
    _, status = os.waitpid(pid, 0)
    return written.decode(errors="replace"), os.waitstatus_to_exitcode(status)


def wait_for(terminal: int, text: bytes) -> bytes:
    """What comes until `text`, or the program's end."""
    written, end = b"", time.monotonic() + 30
    while text not in written and time.monotonic() < end:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            written += os.read(terminal, 4096)
        except OSError:
            break
    return written


def main() -> None:
    command, count, *words = sys.argv[1:]
    with holders(int(count), words):
        # This process is one that KSM knows.
        ctypes.CDLL(None).prctl(67, 1, 0, 0, 0)
        ctypes.CDLL(None).prctl(PR_SET_NAME, NAME, 0, 0, 0)
        merge()
        shown, status = screen(command, "top", "--interval", "0.2")
        lines = output(command, "top", "--count", "2", "--interval", "0.1")
        looks = output(command, "--json", "top", "--count", "2", "--interval", "0.1").splitlines()
        counted = {name: read(name) for name in ("pages_shared", "pages_sharing", "full_scans")}
        result = {"shown": shown, "status": status, "lines": lines, "pid": os.getpid()}
        print(json.dumps({**result, "looks": list(map(json.loads, looks)), "counted": counted}))


main()
