# SPDX-License-Identifier: GPL-2.0
"""stress-ng's stressors of memory, all of it mergeable, for five minutes, with verification."""

import subprocess
import sys

from lab import answered, at_full_speed, get, version_of

SECONDS = 300
COMMAND = (
    *("stress-ng", "--ksm", "--verify", "--metrics-brief", "--timeout", f"{SECONDS}s"),
    *("--vm", "2", "--vm-bytes", "256M", "--vm-method", "all"),
    *("--madvise", "1", "--mmap", "1", "--mmap-bytes", "64M", "--mremap", "1", "--mremap-bytes"),
    *("32M", "--fork", "1", "--fork-vm", "--brk", "1", "--brk-bytes", "64M", "--mlock", "1"),
)


def main() -> None:
    at_full_speed()
    begun = get("pages_scanned")
    done = subprocess.run(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or "failed: 0" not in done.stdout:
        sys.exit(done.stdout)
    end = next(line for line in done.stdout.splitlines() if "successful run" in line)
    answered(
        "stress-ng",
        version_of("stress-ng"),
        "--ksm --verify with vm, madvise, mmap, mremap, fork, brk, mlock",
        f"{end.split('] ', 1)[-1].strip()}; {get('pages_scanned') - begun} pages scanned meanwhile",
    )


main()
