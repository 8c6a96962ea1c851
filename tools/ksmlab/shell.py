# SPDX-License-Identifier: GPL-2.0
"""Running other programs: quietly when they succeed, in full when they fail."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
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
    program = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        **options,
    )
    with open(path, "w") as file, program, ended_with_us(program):
        for line in with_progress(program.stdout):
            file.write(line)
    if program.returncode:
        raise failed(argv, program.returncode, path)


@contextmanager
def ended_with_us(program: subprocess.Popen):
    """Do not leave a build running when this tool is stopped."""
    try:
        yield
    except BaseException:
        program.terminate()
        raise


def with_progress(lines):
    """Pass on a build's lines, saying from time to time how many there were."""
    shown = time.monotonic()
    for count, line in enumerate(lines, 1):
        yield line
        if time.monotonic() > shown + PROGRESS_SECONDS:
            shown = time.monotonic()
            say(f"  {count} steps so far, now {line.split()[-1] if line.split() else ''}")


def as_root(*argv: str) -> list[str]:
    """The command line that runs a program as root."""
    if os.geteuid() == 0:
        return list(argv)
    if shutil.which("sudo"):
        return ["sudo", *argv]
    raise Failure(f"needs root: {' '.join(argv)}")
