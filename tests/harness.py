# SPDX-License-Identifier: GPL-2.0
"""What the tests share: running something in a VM, and looking at the result."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from ksmlab.paths import REPO

LANES = ("um", "x86")

# Seconds after which a test's VM is stopped.  Emulation is slow, and two
# tests share the machine.
TIMEOUT = {"um": 240, "x86": 900}


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


@dataclass
class Vm:
    """Runs commands in VMs; the files of a run are kept in `directory`."""

    directory: Path

    def run(self, *command: str, lane: str = "um", ksm: str = "rs", **options) -> Result:
        """One boot.  An option is named as tools/vm has it; True stands alone."""
        console = self.directory / "console"
        options = {"timeout": TIMEOUT[lane], "console": console, **options}
        words = [REPO / "tools/vm", "run", "--lane", lane, "--ksm", ksm]
        for name, value in options.items():
            option = f"--{name.replace('_', '-')}"
            words += [option] if value is True else [option, value]
        done = subprocess.run(
            [str(word) for word in [*words, "--", *command]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        log = console.read_text(errors="replace") if console.exists() else ""
        return Result(done.returncode, done.stdout, done.stderr.decode(errors="replace"), log)
