# SPDX-License-Identifier: GPL-2.0
"""Holds memory that each process of this program has, and prints its address.

Arguments: MiB; `merge-any`, `advised`, or `plain` for memory without advice.
"""

import ctypes
import mmap
import random
import signal
import sys

PR_SET_MEMORY_MERGE = 67
MIB = 1 << 20


def main() -> None:
    mib, advice = int(sys.argv[1]), sys.argv[2]
    libc = ctypes.CDLL(None, use_errno=True)
    if advice == "merge-any" and libc.prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_MEMORY_MERGE")
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if advice == "advised":
        memory.madvise(mmap.MADV_MERGEABLE)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory.write(random.Random(1).randbytes(mib * MIB))
    print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
    signal.pause()


main()
