# SPDX-License-Identifier: GPL-2.0
"""Running other programs: quietly when they succeed, in full when they fail."""

import os
import shutil
import subprocess
import time
from pathlib import Path

from .paths import in_cache
from .say import Failure, say

PROGRESS_SECONDS = 20


def output(*argv: str | Path, env: dict[str, str] | None = None) -> str:
    """A program's output, or nothing if it cannot be run or fails."""
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def failed(argv: list, status: int, log: Path) -> Failure:
    end = "\n".join(log.read_text(errors="replace").splitlines()[-60:])
    return Failure(f"{argv[0]} failed with status {status}; the end of {log}:\n{end}")


def logged(log: str, *argv: str | Path, **options) -> None:
    """Run a program with its output in CACHE/logs/LOG; a failure shows its end."""
    path = in_cache("logs", f"{log}.log")
    with open(path, "ab") as file:
        file.write(f"$ {' '.join(map(str, argv))}\n".encode())
        file.flush()
        status = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            **options,
        ).returncode
    if status:
        raise failed(list(argv), status, path)


def watched(log: str, argv: list[str], **options) -> None:
    """Like `logged`, for a build of minutes: now and then say how far it is."""
    path = in_cache("logs", f"{log}.log")
    shown = time.monotonic()
    with (
        open(path, "w") as file,
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            **options,
        ) as program,
    ):
        for count, line in enumerate(program.stdout, 1):
            file.write(line)
            if time.monotonic() > shown + PROGRESS_SECONDS:
                shown = time.monotonic()
                say(f"  {count} steps so far, now {' '.join(line.split()[-1:])}")
    if program.returncode:
        raise failed(argv, program.returncode, path)


def as_root(*argv: str) -> list[str]:
    """The command line that runs a program as root."""
    if os.geteuid() == 0:
        return list(argv)
    if shutil.which("sudo"):
        return ["sudo", *argv]
    raise Failure(f"needs root: {' '.join(argv)}")
