# SPDX-License-Identifier: GPL-2.0
"""A process that offers all of its memory to KSM, and holds some until its input ends.

Arguments: MiB that each such process has, MiB that it alone has, MiB of zeros.
"""

import ctypes
import mmap
import os
import random
import sys

PR_SET_MEMORY_MERGE = 67
MIB = 1 << 20


def hold(content: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(content), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(content)
    return memory


def main() -> None:
    common, alone, zeros = (int(word) * MIB for word in sys.argv[1:])
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_MEMORY_MERGE")
    contents = (random.Random(1).randbytes(common), os.urandom(alone), bytes(zeros))
    held = [hold(content) for content in contents if content]
    del contents
    print("ready", flush=True)
    sys.stdin.read()
    held.clear()


main()
