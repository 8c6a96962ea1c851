# SPDX-License-Identifier: GPL-2.0
"""What the tests share: running something in a VM, and looking at the result."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from ksmlab import flavour, machine
from ksmlab.paths import REPO

LANES = ("um", "x86")

# Seconds after which a test's VM is stopped.  Emulation is slow, and two
# tests share the machine.
TIMEOUT = {"um": 240, "x86": 900}

# How a program of the tests ends that cannot run.
SKIPPED = 77

# A debug kernel takes so many times as long, and so many MiB more for itself.
SLOWNESS = {flavour.ORDINARY: 1, flavour.DEBUG: 4, flavour.KCSAN: 4}
MORE_MIB = {flavour.ORDINARY: 0, flavour.DEBUG: 256, flavour.KCSAN: 128}


# Seconds that a test may take beside its VMs.
BESIDE_VMS = 60


def limit(vm_seconds: float) -> float:
    """The time limit of a test whose VMs together may take `vm_seconds` in an ordinary kernel."""
    return (vm_seconds + BESIDE_VMS) * SLOWNESS[flavour.usual()]


@dataclass(repr=False)
class Result:
    """How a run of tools/vm ended."""

    status: int
    stdout: bytes
    stderr: str
    log: str

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")

    def __repr__(self) -> str:
        return f"<exit status {self.status}>"

    def explain(self) -> str:
        """All of it, for the message of a failed test."""
        return f"exit status {self.status}\n{self.text}\n{self.stderr}"


def needs(lane: str, timeout: float | None = None, mem: str | None = None, **_) -> dict:
    """What a test asks for, or usually has, in the kernel that the tests run on."""
    kind = flavour.usual()
    scaled: dict = {"timeout": (timeout or TIMEOUT[lane]) * SLOWNESS[kind]}
    if mem:
        scaled["mem"] = f"{(machine.bytes_of(mem) >> 20) + MORE_MIB[kind]}M"
    return scaled


@dataclass
class Vm:
    """Runs commands in VMs; the files of a run are kept in `directory`."""

    directory: Path

    def run(self, *command: str, lane: str = "um", ksm: str = "rs", **options) -> Result:
        """One boot.  An option is named as tools/vm has it; True stands alone."""
        console = self.directory / "console"
        options = {"console": console, **options, **needs(lane, **options)}
        words = [REPO / "tools/vm", "run", "--lane", lane, "--ksm", ksm]
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, value]
        done = subprocess.run(
            [str(word) for word in [*words, "--", *with_settings(), *command]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        log = console.read_text(errors="replace") if console.exists() else ""
        return Result(done.returncode, done.stdout, done.stderr.decode(errors="replace"), log)


def with_settings() -> list[str]:
    """What stands before a command whose scanner starts with other values in ksm_rs/ than the defaults."""
    settings = os.environ.get("KSM_RS_SETTINGS")
    return ["env", f"KSM_RS_SETTINGS={settings}"] if settings else []


def wait_for(condition, seconds: float) -> None:
    """Fails the test unless the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    """The processes that the first thread of a process has started."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return list(map(int, file.read().split()))
