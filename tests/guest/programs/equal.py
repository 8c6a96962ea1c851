# SPDX-License-Identifier: GPL-2.0
"""Holds memory that each process of this program has, and prints its address.

Argument: MiB.
"""

import ctypes
import mmap
import random
import signal
import sys

MIB = 1 << 20


def main() -> None:
    mib = int(sys.argv[1])
    memory = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    memory.write(random.Random(1).randbytes(mib * MIB))
    print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
    signal.pause()


main()
