# SPDX-License-Identifier: GPL-2.0
"""Measures programs of the host, on one CPU, while User Mode Linux scans its memory on another one: how much
slower they get, with nobody scanning, with the kernel's own KSM and with ksm_rs."""

import argparse
import json
import os
import random
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from . import bench_command, bench_guest, bench_sides, neighbour_results, neighbours, programs, setup, vm
from .bench_guest import whole
from .machine import Images, Request
from .main import main
from .neighbour_plan import MIB, NOBODY, SCANS, Scan
from .neighbour_results import Sample
from .neighbours import Neighbour
from .paths import REPO
from .say import Failure, say

LANE = "um"

# Where the VM runs, and the neighbours.
SCANNING_CPU, NEIGHBOURS_CPU = 0, 1

RESULTS = REPO / "bench/results/neighbour"

# What a neighbour takes beside what is measured of it.
START_SECONDS = 2

# Until the memory is known to KSM.
READY_SECONDS = 120


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench-neighbour", description=__doc__)
    add = parser.add_argument
    add("--rounds", type=int, default=7, metavar="N", help="of all scans (default %(default)s)")
    add("--seconds", type=float, default=4, metavar="S", help="for a neighbour (default %(default)s)")
    add("--mib", type=int, default=MIB, metavar="N", help="memory that is scanned (default %(default)s)")
    add("--only", default="", metavar="TEXT", help="scans whose names have this text, and none at all")
    add("--output", type=Path, default=RESULTS, metavar="DIR", help="where results go")
    return parser.parse_args()


class Scanning:
    """A VM on a CPU of its own, in another thread."""

    def __init__(self, scan: Scan, images: Images, mib: int, seconds: float) -> None:
        self.scan, self.images = scan, images
        self.request = Request(
            command=scan.command(mib, seconds),
            lane=LANE,
            ksm=scan.ksm,
            mem=f"{mib * 13 // 10 + 400}M",
            huge_pages=bench_guest.huge_pages(LANE),
            timeout=READY_SECONDS + seconds,
        )
        self.status: int | None = None

    @contextmanager
    def running(self):
        """From when it has its pace."""
        with tempfile.NamedTemporaryFile() as out, tempfile.TemporaryFile() as err:
            thread = threading.Thread(target=self.run, args=((out.fileno(), err.fileno()),))
            thread.start()
            try:
                self.await_ready(Path(out.name), thread)
                yield
            finally:
                thread.join()
            if self.status:
                raise Failure(f"{self.scan.name} ended with {self.status}:\n{whole(err)}")
            self.sums = json.loads(whole(out).splitlines()[-1])

    def run(self, outputs: tuple[int, int]) -> None:
        os.sched_setaffinity(0, {SCANNING_CPU})
        self.status = vm.run(self.request, self.images, outputs)

    def await_ready(self, out: Path, thread: threading.Thread) -> None:
        while not out.read_text().startswith("ready"):
            if not thread.is_alive():
                raise Failure(f"{self.scan.name} ended before it began")
            time.sleep(0.2)


def measure(scan: Scan, images: Images, beside: list[Neighbour], options: argparse.Namespace) -> Sample:
    """What neighbours, one after the other, notice of a scan."""
    seconds = len(beside) * (options.seconds + START_SECONDS)
    scanning = Scanning(scan, images, options.mib, seconds)
    with scanning.running():
        began, busy = time.monotonic(), busy_seconds(SCANNING_CPU)
        quantiles = {one.name: one.measure(options.seconds) for one in beside}
        took, busy = time.monotonic() - began, busy_seconds(SCANNING_CPU) - busy
    if took > seconds:
        raise Failure(f"neighbours took {took:.0f} s beside a scan of {seconds:.0f} s")
    return Sample(quantiles, {**scanning.sums, "percent_of_its_cpu": 100 * busy / took})


def busy_seconds(cpu: int) -> float:
    """Time that this CPU has not been idle, in all."""
    lines = Path("/proc/stat").read_text().splitlines()
    words = next(line.split()[1:] for line in lines if line.startswith(f"cpu{cpu} "))
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, words)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def in_turns(options: argparse.Namespace, images: dict[str, Images]) -> neighbour_results.Samples:
    """Each round has an order of its own: what changes on the machine meets all."""
    scans = [scan for scan in SCANS if options.only in scan.name or scan.name == NOBODY]
    samples = {scan.name: [] for scan in scans}
    with neighbours.all_of_them(NEIGHBOURS_CPU) as beside:
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for scan in random.Random(number).sample(scans, len(scans)):
                samples[scan.name].append(measure(scan, images[scan.ksm], beside, options))
    return samples


def run() -> int:
    options = parse()
    if os.cpu_count() < 2:
        raise Failure("a scan and its neighbour need a CPU each")
    sides = bench_sides.with_c(LANE, setup.tools())
    programs.build()
    about = {**bench_command.circumstances(sides, None), "caches": neighbour_results.caches()}
    with bench_command.kept({side: one.images() for side, one in sides.items()}) as images:
        samples = in_turns(options, images)
    neighbour_results.save(samples, about, options.output)
    bench_command.drawn("neighbour_drawing", options.output)
    print(neighbour_results.table(samples))
    return 0


if __name__ == "__main__":
    main(run)
