# SPDX-License-Identifier: GPL-2.0
"""Runs one command in one VM, and judges how it went."""

import contextlib
import ctypes
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from . import checks, console, debian_lane, guest, qemu, uml
from .machine import Images, Request, Wiring
from .relay import Follower, Terminal, raw_terminal
from .say import say

LANES = {"um": uml, "x86": qemu, "debian": debian_lane}

# Exit statuses of our own, as timeout(1) and env(1) have them.
TIMED_OUT = 124
VM_FAILED = 125

# How often to look for output.
RELAY_SECONDS = 0.02

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def in_child() -> None:
    """Make the emulator end with this tool, even if that is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(request: Request, images: Images, outputs: tuple[int, int] | None = None) -> int:
    """Boot, run the command, and return the exit status for our caller.

    The command's two outputs go to the descriptors `outputs`, or to our own.
    """
    with tempfile.TemporaryDirectory(prefix="ksm-vm-") as name:
        directory = Path(name)
        (directory / "uml").mkdir()
        lane = LANES[request.lane]
        guest.prepare(directory, request, images, (lane.OUT_DEVICE, lane.ERR_DEVICE))
        with contextlib.ExitStack() as stack:
            if request.lane == "debian":
                stack.enter_context(debian_lane.shared(directory, request))
            if request.terminal:
                stack.enter_context(raw_terminal())
            in_time = boot(directory, request, images, outputs)
        if request.console:
            shutil.copyfile(directory / "log", request.console)
        return verdict(directory, request, images, in_time)


def boot(
    directory: Path, request: Request, images: Images, outputs: tuple[int, int] | None
) -> bool:
    """Run the VM to its end; false if it had to be stopped for lack of time."""
    with contextlib.ExitStack() as stack:
        wiring, relay = wire(directory, request, outputs, stack)
        vm = start(wiring, request, images)
        if wiring.terminal:
            wiring.terminal.close()
        try:
            return wait(vm, relay, time.monotonic() + request.timeout)
        finally:
            vm.kill()
            vm.wait()
            while relay.turn(0.0):
                pass


def wire(
    directory: Path,
    request: Request,
    outputs: tuple[int, int] | None,
    stack: contextlib.ExitStack,
):
    """Both ends of what joins the VM to us; `stack` closes them."""
    files = [stack.enter_context(open(directory / name, "ab")) for name in ("log", "out", "err")]
    if request.terminal:
        ours, theirs = socket.socketpair()
        relay = Terminal(ours)
    else:
        theirs = None
        _, out, err = files
        to_out, to_err = outputs or (sys.stdout.fileno(), sys.stderr.fileno())
        relay = Follower([(out.name, to_out), (err.name, to_err)])
    stack.callback(relay.close)
    return Wiring(directory, *files, theirs), relay


def start(wiring: Wiring, request: Request, images: Images) -> subprocess.Popen:
    lane = LANES[request.lane]
    return subprocess.Popen(
        lane.arguments(images, request, wiring),
        stdin=subprocess.DEVNULL,
        stdout=wiring.log,
        stderr=wiring.log,
        env=lane.environment(request),
        pass_fds=wiring.descriptors(),
        preexec_fn=in_child,
        start_new_session=True,
    )


def wait(vm: subprocess.Popen, relay: Follower | Terminal, deadline: float) -> bool:
    """Relay until the VM has ended (true) or the deadline has passed (false)."""
    while vm.poll() is None:
        if time.monotonic() > deadline:
            return False
        relay.turn(RELAY_SECONDS)
    return True


def verdict(directory: Path, request: Request, images: Images, in_time: bool) -> int:
    """Judge by what the VM reported and by its kernel's log."""
    log = (directory / "log").read_text(errors="replace")
    problem = kernel_problem(directory, log)
    if problem is None and not in_time:
        fail(f"timeout: the VM did not end within {request.timeout:g} s", log)
        return TIMED_OUT
    if problem is None:
        problem = missing_result(directory) or silent_check(directory, images)
    if problem is not None:
        fail(problem, log)
        return VM_FAILED
    return int(report(directory, "status"))


def report(directory: Path, name: str) -> str | None:
    """What the guest's init wrote under `name`."""
    file = directory / name
    return file.read_text().strip() if file.exists() else None


def kernel_problem(directory: Path, log: str) -> str | None:
    """A fault of the kernel, found in its memory, its log or its taint flags."""
    leaks = checks.leaks(partial(report, directory))
    if leaks:
        return leaks
    line = console.trouble(log)
    if line:
        return f"the kernel reported: {line}"
    harm = console.taint(int(report(directory, "taint") or 0))
    return f"the kernel is tainted: {harm}" if harm else None


def missing_result(directory: Path) -> str | None:
    """Why there is no exit status of the command, if there is none."""
    failure = report(directory, "failure")
    if failure:
        return f"the VM could not be set up: {failure}"
    if report(directory, "status") is None:
        return "the VM ended before the command did"
    return None


def silent_check(directory: Path, images: Images) -> str | None:
    """A check that was built into the kernel and has not come to its end."""
    return checks.silent(partial(report, directory), images.options.splitlines())


def fail(problem: str, log: str) -> None:
    say("the last lines of the VM's console:")
    print(console.tail(log), file=sys.stderr)
    say(f"FAILED: {problem}")
