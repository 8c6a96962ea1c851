# SPDX-License-Identifier: GPL-2.0
"""One run of the benchmark's program in a VM of its own."""

import functools
import json
import subprocess
import tempfile
from dataclasses import dataclass

from . import vm
from .bench_plan import Job
from .bench_results import C, OURS, Curves, Measures
from .machine import Images, Request
from .say import Failure

# Emulation, against a CPU.
SLOWNESS = {"um": 1, "x86": 20}


@dataclass
class Laboratory:
    """What the runs of a benchmark have in common."""

    lane: str
    images: dict[str, Images]
    # Files and parameters of the module that is looked at, not of the one that it is compared with.
    settings: tuple[str, ...] = ()
    parameters: str = ""

    def measure(self, job: Job, side: str) -> tuple[Measures, Curves]:
        """Boot, run the workload, and return what it has measured."""
        request = Request(
            command=command(self.words(job, side), self.lane),
            lane=self.lane,
            ksm="c" if side == C else "rs",
            parameters=self.parameters if side == OURS else "",
            mem=f"{job.memory_mib()}M",
            cpus=1,
            icount=self.lane == "x86",
            huge_pages=huge_pages(self.lane),
            timeout=job.timeout(SLOWNESS[self.lane]),
        )
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            status = vm.run(request, self.images[side], (out.fileno(), err.fileno()))
            texts = [whole(file) for file in (out, err)]
        if status:
            raise Failure(f"{job.name} under {side} ended with {status}:\n{''.join(texts)}")
        record = json.loads(texts[0])
        return record["measures"], record.get("curves", {})


    def words(self, job: Job, side: str) -> list[str]:
        """The program and what it is asked to do."""
        settings = self.settings if side == OURS else ()
        return [*job.command(), *(word for one in settings for word in ("--set", one))]


def huge_pages(lane: str) -> bool:
    """Whether User Mode Linux can have its memory as a kernel does: that takes a mount."""
    return lane == "um" and can_mount()


@functools.cache
def can_mount() -> bool:
    """Whether we may; in a container even root often may not."""
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def command(words: list[str], lane: str) -> list[str]:
    """The emulated kernel proves its locking, which is not to be measured."""
    return [*words, "--touch"] if lane == "um" else unproved(words)


def unproved(command: list[str]) -> list[str]:
    """The command in a kernel that does not prove its locking."""
    script = 'echo 0 > /proc/sys/kernel/prove_locking; exec "$@"'
    return ["sh", "-c", script, "sh", *command]


def whole(file) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
