# SPDX-License-Identifier: GPL-2.0
"""Programs of the host whose work is timed while a VM on another CPU scans its memory."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import programs, setup
from .say import Failure
from .shell import output

# The server's program has another name in the package with the tools, which starts no service.
REDIS_PROGRAM = "redis-check-rdb"
REDIS_TOOLS = {REDIS_PROGRAM: "redis-tools", "redis-benchmark": "redis-tools"}

# Where the kernel says how large the caches of a CPU are.
CACHES = "/sys/devices/system/cpu/cpu{}/cache"

# Of the pointer chase, if the machine does not say how large its caches are.
CHASE_MIB = 8

# More than all caches have.
STREAM_MIB = 512

# Keys with a page's worth of data each, as many as 400 MiB have room for.
REDIS_KEYS, REDIS_BYTES = 100_000, 4000
REDIS_CLIENTS = 8

# Until the server must listen.
START_SECONDS = 20

# Requests a second that a load generator on the same CPU makes at least.
REDIS_RATE = 20_000

# Quantiles of the load generator, which it gives at powers of 1/2.
PERCENTILES = re.compile(r"^(\d+\.\d+)% <= (\d+\.\d+) milliseconds", re.M)

Quantiles = dict[str, float]


@dataclass(frozen=True)
class Neighbour:
    name: str
    unit: str
    measure: Callable[[float], Quantiles]  # for so many seconds


@contextlib.contextmanager
def all_of_them(cpu: int) -> Iterator[list[Neighbour]]:
    """Those that can be measured on this CPU."""
    with redis(cpu) as socket:
        yield [
            Neighbour("pointer chase", "ns a load", lambda time: ours(cpu, "chase", chase_mib(cpu), time)),
            Neighbour("stream", "µs a MiB", lambda time: ours(cpu, "stream", STREAM_MIB, time)),
            Neighbour("Redis", "µs a request", lambda time: requests(cpu, socket, time)),
        ]


def chase_mib(cpu: int) -> int:
    """Half of the largest cache, which CPUs share: more than the second one of a CPU has."""
    sizes = [int(file.read_text().strip().rstrip("K")) for file in Path(CACHES.format(cpu)).glob("index*/size")]
    return max(sizes) // 2048 if sizes else CHASE_MIB


def on(cpu: int, *command: object) -> list[str]:
    return ["taskset", "--cpu-list", str(cpu), *map(str, command)]


def ours(cpu: int, kind: str, mib: int, seconds: float) -> Quantiles:
    program = programs.directory() / "ksm-neighbour"
    return json.loads(
        output(*on(cpu, program, kind, "--mib", mib, "--seconds", seconds))
        or failed(f"ksm-neighbour {kind}")
    )


@contextlib.contextmanager
def redis(cpu: int) -> Iterator[Path]:
    """A server that holds its data in memory only; the socket that it listens at."""
    setup.need(REDIS_TOOLS)
    with tempfile.TemporaryDirectory(prefix="ksm-redis-") as directory:
        socket = Path(directory) / "socket"
        words = ["redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", directory]
        server = subprocess.Popen(
            list(map(str, words)),
            executable=shutil.which(REDIS_PROGRAM),
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
        )
        try:
            await_socket(socket)
            fill(cpu, socket)
            yield socket
        finally:
            server.kill()
            server.wait()


def await_socket(socket: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while not socket.exists():
        if time.monotonic() > end:
            failed("redis-server")
        time.sleep(0.1)


def fill(cpu: int, socket: Path) -> None:
    """Every key has a value: the generator draws keys, and leaves one in e^8 out."""
    answered = benchmark(cpu, socket, "set", 8 * REDIS_KEYS)
    if not PERCENTILES.search(answered):
        failed("redis-benchmark")


def benchmark(cpu: int, socket: Path, test: str, number: int) -> str:
    words = ["-s", socket, "-t", test, "-n", number, "-r", REDIS_KEYS, "-d", REDIS_BYTES]
    return output(*on(cpu, "redis-benchmark", *words, "-c", REDIS_CLIENTS))


def requests(cpu: int, socket: Path, seconds: float) -> Quantiles:
    return percentiles(benchmark(cpu, socket, "get", int(seconds * REDIS_RATE)))


def percentiles(answer: str) -> Quantiles:
    """From what the load generator prints."""
    found = [(float(share), float(time)) for share, time in PERCENTILES.findall(answer)]
    wanted = {"p50": 50, "p99": 99, "p999": 99.9}
    return {name: quantile(found, share) for name, share in wanted.items()}


def quantile(found: list[tuple[float, float]], share: float) -> float:
    """In microseconds; the first one that is at least as high."""
    time = next((time for at, time in found if at >= share), None)
    return round(time * 1000, 3) if time is not None else failed("redis-benchmark")


def failed(program: str):
    raise Failure(f"{program} has measured nothing")
