# SPDX-License-Identifier: GPL-2.0
"""The system is written to disk with merged pages, and read back, as the kernel's own test does it."""

import os
import re
from pathlib import Path

from lab import (
    answered, at_full_speed, equal, expect, get, memory, merging, output, put, scans, wait_for,
)  # fmt: skip

SWAP = Path("/swapfile")
MIB, SWAP_MIB = 8, 512
POWER = Path("/sys/power")


def make_swap() -> None:
    output("dd", "if=/dev/zero", f"of={SWAP}", "bs=1M", f"count={SWAP_MIB}", "conv=fsync")
    SWAP.chmod(0o600)
    output("mkswap", SWAP)
    output("swapon", SWAP)
    extents = output("filefrag", "-v", SWAP)
    offset = re.search(r"^ +0: +0\.\. +\d+: +(\d+)\.\.", extents, re.M)[1]
    (POWER / "resume_offset").write_text(offset)
    device = os.stat(SWAP).st_dev
    (POWER / "resume").write_text(f"{os.major(device)}:{os.minor(device)}")


def written() -> int:
    """Bytes of the swap file, on the disk, that are not zero."""
    return int(output("sh", "-c", f"dd if={SWAP} iflag=direct bs=1M | tr -d '\\0' | wc -c"))


def main() -> None:
    make_swap()
    at_full_speed()
    # With a pause of 0 the kernel's own ksmd does not freeze, and hibernation gives up.
    put(sleep_millisecs=1)
    with equal(MIB) as (one, two):
        wait_for("both share", lambda: merging(one.pid) > 2000 and merging(two.pid) > 2000)
        address = next(
            int(line.split("-")[0], 16)
            for line in Path(f"/proc/{one.pid}/maps").read_text().splitlines()
            if size(line) == MIB << 20
        )
        before = memory(one.pid, address, MIB << 20)
        (POWER / "disk").write_text("test_resume")
        (POWER / "state").write_text("disk")
        expect("every byte is as it was", memory(one.pid, address, MIB << 20) == before)
        expect("pages are still merged", merging(one.pid) > 2000 and merging(two.pid) > 2000)
        scans(2)
        # The kernel forgets that it has written the image, as all of its memory is from before that.
        image = written()
        expect("the image was written", image > 16 << 20, image)
        answered(
            "hibernation",
            os.uname().release,
            "echo test_resume > /sys/power/disk; echo disk > /sys/power/state",
            f"image of {image >> 20} MiB written and read; {get('pages_sharing')} pages still shared, and scanned on",
        )


def size(line: str) -> int:
    start, end = (int(word, 16) for word in line.split()[0].split("-"))
    return end - start


main()
