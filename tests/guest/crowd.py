# SPDX-License-Identifier: GPL-2.0
"""Prints what the commands `ksm top` and `ksm sharing` say of very many processes, of which some end
meanwhile.

Arguments: the command ksm; the number of processes.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time

from loads import merge, output

PR_SET_MEMORY_MERGE = 67

# Some end while they are looked at.
MORTAL = 200


def start() -> int:
    """A process with little memory, which waits."""
    return os.posix_spawn("/bin/sleep", ["sleep", "infinity"], {})


def end(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def timed(*command: str) -> tuple[dict, float]:
    begun = time.monotonic()
    told = json.loads(output(*command))
    return told, time.monotonic() - begun


def main() -> None:
    command, count = sys.argv[1], int(sys.argv[2])
    ctypes.CDLL(None).prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0)
    pids = [start() for _ in range(count)]
    merge()
    top, top_seconds = timed(command, "--json", "top", "--count", "1")
    killer = threading.Thread(target=end, args=[pids[:MORTAL]])
    killer.start()
    sharing, sharing_seconds = timed(command, "--json", "sharing")
    killer.join()
    end(pids[MORTAL:])
    seconds = {"top": top_seconds, "sharing": sharing_seconds}
    print(json.dumps({"top": top, "sharing": sharing, "seconds": seconds}))


main()
