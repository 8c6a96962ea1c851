# SPDX-License-Identifier: GPL-2.0
"""Compares ksm_rs with the kernel's own KSM, or with the ksm_rs of another commit:
the same VM, one boot after the other, in turns."""

import argparse
import dataclasses
import datetime
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from . import (
    bench_goals,
    bench_guest,
    bench_plan,
    bench_results,
    bench_sides,
    bench_table,
    programs,
    setup,
)
from .bench_guest import Laboratory
from .bench_plan import Job
from .bench_results import BASE, OURS, Result
from .bench_sides import Sides
from .machine import Images
from .main import main
from .paths import REPO, in_cache
from .say import say
from .shell import logged, output
from .sources import git_pathspec

RESULTS = REPO / "bench/results"

# Directories of the cache, for results that must not take the place of those.
QUICK_RESULTS, BASE_RESULTS, SET_RESULTS = "bench-quick", "bench-base", "bench-set"

# Of the memory that the machine could give, the part that a VM may take.
MEMORY_SHARE = 0.9


def listed(text: str) -> list[str]:
    return text.split(",")


def sizes(text: str) -> list[int]:
    return [int(word) for word in listed(text)]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="each workload once, at a small size")
    add(
        "--workloads",
        type=listed,
        metavar="NAME,...",
        help=f"some of: {', '.join(bench_plan.ALL)}",
    )
    add("--mib", type=sizes, metavar="N,...", help="amounts of memory to merge, in MiB")
    add("--rounds", type=int, metavar="N", help="pairs of runs of each workload")
    add("--lane", choices=("um", "x86"), default="um", help="the VM (default %(default)s)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a file of /sys/kernel/mm/ksm_rs and its value, in place of the default, but not for --base",
    )
    add(
        "--parameters",
        default="",
        metavar="NAME=VALUE ...",
        help="of the module, but not of the one of --base",
    )
    add("--base", metavar="COMMIT", help="compare with the module of that commit, not with C")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="where results go (default bench/results; with --quick or --base, the cache)",
    )
    return parser.parse_args()


def jobs(options: argparse.Namespace) -> list[Job]:
    """What the options ask for: if they name nothing, all."""
    usual = usual_jobs(options.lane, options.quick)
    if not (options.workloads or options.mib or options.rounds):
        return usual
    # The first counts: the others show growth.
    first = {job.workload: job for job in reversed(usual)}
    workloads = options.workloads or bench_plan.WORKLOADS
    chosen = [first.get(workload, usual[0]) for workload in workloads]
    return [
        Job(workload, mib or job.mib, options.rounds or job.rounds)
        for mib in options.mib or [None]
        for workload, job in zip(workloads, chosen)
    ]


def usual_jobs(lane: str, quick: bool) -> list[Job]:
    if quick:
        return bench_plan.quick()
    return bench_plan.full() if lane == "um" else bench_plan.emulated()


def fitting(wanted: list[Job]) -> list[Job]:
    """Leave out what this machine has no memory for."""
    free = available_mib() * MEMORY_SHARE
    for job in wanted:
        if job.memory_mib() > free:
            say(f"{job.name} is left out: {job.memory_mib()} MiB of memory are not free here")
    return [job for job in wanted if job.memory_mib() <= free]


def available_mib() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kib) // 1024


def circumstances(sides: Sides, base: str | None) -> dict[str, str]:
    built = sides[OURS].kernel
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    about = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{len(models)} x {models[0]}",
        "memory": "in huge pages" if bench_guest.huge_pages(built.lane) else "in small pages",
        "kernel": built.tree.name,
        "module": module_version(),
    }
    return {**about, "base": f"compared with {base} in {base_kernel(sides)}"} if base else about


def other_than_usual(options: argparse.Namespace) -> dict[str, str]:
    """What was set for ksm_rs alone."""
    words = [*options.set, *options.parameters.split()]
    return {"set": f"with {' '.join(words)}"} if words else {}


def base_kernel(sides: Sides) -> str:
    """Whether patches or options make a kernel of its own necessary."""
    base, ours = sides[BASE].kernel, sides[OURS].kernel
    if base.build == ours.build:
        return "the same kernel"
    return f"a kernel of its own, {base.tree.name}"


def module_version() -> str:
    """The commit, and whether the module is what was committed."""
    commit = output("git", "-C", REPO, "rev-parse", "--short=12", "HEAD").strip() or "unknown"
    changed = output("git", "-C", REPO, "status", "--porcelain", "--", *git_pathspec()).strip()
    return f"{commit} and changes" if changed else commit


@contextmanager
def kept(images: dict[str, Images]):
    """The modules as they are now, though the tree may change while the benchmark runs."""
    with tempfile.TemporaryDirectory(prefix="ksm-bench-") as directory:
        copies = {
            side: Path(shutil.copy(one.module, Path(directory) / f"{side}.ko"))
            for side, one in images.items()
            if one.module
        }
        yield {
            side: dataclasses.replace(one, module=copies.get(side)) for side, one in images.items()
        }


class Clock:
    """Says how much longer it takes: by the guesses of all jobs, and how wrong they were."""

    def __init__(self, todo: list[Job]) -> None:
        self.left = sum(2 * job.rounds * job.seconds() for job in todo)
        self.guessed = 0.0
        self.began = time.monotonic()

    def tick(self, job: Job) -> None:
        self.guessed += job.seconds()
        self.left -= job.seconds()

    def minutes_left(self) -> float:
        factor = (time.monotonic() - self.began) / self.guessed if self.guessed else 1.0
        return self.left * factor / 60


def measure(laboratory: Laboratory, job: Job, clock: Clock) -> tuple[dict, dict]:
    """Samples and curves of all rounds of one job, for each side."""
    samples, curves = ({side: [] for side in laboratory.images} for _ in range(2))
    for order in job.orders(list(laboratory.images)):
        for side in order:
            measures, drawn = laboratory.measure(job, side)
            samples[side].append(measures)
            curves[side] += [drawn] if drawn else []
            clock.tick(job)
    return samples, curves


def show(todo: list[Job], target: Path, lane: str, base: str | None) -> None:
    """Write a table of all that is known; print what was run now, and what is not good."""
    known = bench_results.load_all(target, lane, base)
    (target / f"table{bench_results.suffix(lane, base)}.md").write_text(bench_table.page(known))
    now = {key: known[key] for key in known if key in [(job.workload, job.mib) for job in todo]}
    print(bench_table.page(now))
    verdict = f"worse than {base}" if base else "goal missed"
    missed = bench_table.missed(now)
    for line in missed:
        print(f"{verdict}: {line}")
    if base and not missed:
        print(f"No median is worse than {bench_goals.NOT_WORSE} of {base}.")


def draw(target: Path, lane: str, base: str | None) -> None:
    """Bars and curves of all that is known."""
    drawn("bench_drawings", "--lane", lane, *(["--base", base] if base else []), target)


def drawn(module: str, *words: object) -> None:
    """Runs a module of ours that draws, by the Python that has the library for it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPO / "tools"),
        "MPLCONFIGDIR": str(in_cache("matplotlib")),
    }
    logged("drawings", setup.python(), "-m", f"ksmlab.{module}", *words, env=environment)


def directory(options: argparse.Namespace) -> Path:
    """Quick results must not take the place of good ones; those in the tree are comparisons with C."""
    if options.output:
        return options.output
    if options.set or options.parameters and not options.base:
        return in_cache(SET_RESULTS)
    if options.quick:
        return in_cache(QUICK_RESULTS)
    return in_cache(BASE_RESULTS) if options.base else RESULTS


def run() -> int:
    options = parse()
    base = bench_sides.commit_of(options.base) if options.base else None
    todo = fitting(jobs(options))
    sides = sides_of(options.lane, base)
    programs.build()
    target = directory(options)
    about = {**circumstances(sides, base), **other_than_usual(options)}
    with kept({side: one.images() for side, one in sides.items()}) as images:
        laboratory = Laboratory(options.lane, images, tuple(options.set), options.parameters)
        clock = Clock(todo)
        for number, job in enumerate(todo, 1):
            say(f"{number}/{len(todo)}: {job.name} ({clock.minutes_left():.0f} minutes left)")
            runs = measure(laboratory, job, clock)
            result = Result(job.workload, job.mib, options.lane, about, *runs, base)
            result.save(target)
    draw(target, options.lane, base)
    show(todo, target, options.lane, base)
    return 0


def sides_of(lane: str, base: str | None) -> Sides:
    tools = setup.tools()
    if not base:
        return bench_sides.with_c(lane, tools)
    sides = bench_sides.with_base(lane, tools, base)
    say(f"the work tree, {module_version()}, is compared with {base} in {base_kernel(sides)}")
    return sides


if __name__ == "__main__":
    main(run)
