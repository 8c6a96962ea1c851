# SPDX-License-Identifier: GPL-2.0
"""A host with guests, under the kernel's own KSM and under ksm_rs in turns, or under ksm_rs with
and without something set: how much each merges, and what that costs ksmd and the guests."""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from . import bench_guest, bench_sides, bench_table, kvm_plan, programs, setup, vm
from .bench_guest import whole
from .machine import Images, Request
from .main import main
from .say import Failure, say

# What is printed, and how it is called in a program's record.
ROWS = {
    "duplicate pages": "duplicates",
    "pages shared": "pages_shared",
    "pages saved": "pages_sharing",
    "percent of the duplicates": "percent",
    "seconds until 95 %": "seconds",
    "seconds of ksmd until 95 %": "ksmd_seconds",
    "ms of a guest for all of its memory": "guest_millisecs",
}

# Linux in a guest of an emulated machine takes its time.
TIMEOUT = {"guests": 900, "qemu": 3000}

Record = dict[str, float]


@dataclass(frozen=True)
class Side:
    """A KSM, files of /sys/kernel/mm/ksm_rs that have other values, and the module's parameters."""

    title: str
    ksm: str
    settings: tuple[str, ...] = ()
    parameters: str = ""


C, RUST = Side("C", "c"), Side("Rust", "rs")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/bench-kvm", description=__doc__)
    add = parser.add_argument
    add("--qemu", action="store_true", help="QEMU runs Linux in each guest")
    add("--rounds", type=int, default=5, metavar="N", help="pairs of runs (default %(default)s)")
    add("--guests", type=int, metavar="N", help="number of guests")
    add("--mib", type=int, metavar="N", help="what guests have in common, in MiB")
    add(
        "--icount",
        action="store_true",
        help="one CPU whose clock counts instructions, each a nanosecond",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="compare ksm_rs with itself with this in /sys/kernel/mm/ksm_rs",
    )
    add(
        "--parameters",
        default="",
        metavar="NAME=VALUE ...",
        help="compare ksm_rs with itself when it is loaded with these",
    )
    return parser.parse_args()


def compared(options: argparse.Namespace) -> tuple[Side, Side]:
    if not (options.set or options.parameters):
        return C, RUST
    title = " ".join([*options.set, *options.parameters.split()])
    return RUST, Side(title, "rs", tuple(options.set), options.parameters)


def command(options: argparse.Namespace, settings: Iterable[str]) -> list[str]:
    """Locking is not proved, which is not to be measured."""
    words = ["--json"]
    for name in ("guests", "mib"):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value else []
    program = kvm_plan.qemu(*words) if options.qemu else kvm_plan.guests("--victims", "0", *words)
    return bench_guest.unproved(["env", f"KSM_RS_SETTINGS={' '.join(settings)}", *program])


def run_once(options: argparse.Namespace, side: Side, images: Images) -> Record:
    machine = {**(kvm_plan.QEMU_MACHINE if options.qemu else kvm_plan.MACHINE)}
    if options.icount:
        machine["cpus"] = 1
    request = Request(
        command=command(options, side.settings),
        lane=kvm_plan.LANE,
        ksm=side.ksm,
        parameters=side.parameters,
        icount=options.icount,
        timeout=TIMEOUT["qemu" if options.qemu else "guests"],
        **machine,
    )
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        status = vm.run(request, images, (out.fileno(), err.fileno()))
        texts = [whole(file) for file in (out, err)]
    if status:
        raise Failure(f"the run under {side.title} ended with {status}:\n{''.join(texts)}")
    return json.loads(texts[0].splitlines()[-1])


def median(records: list[Record], name: str) -> float | None:
    """None if one of the runs never came so far."""
    values = [record[name] for record in records]
    return None if None in values else statistics.median(values)


def row(title: str, name: str, records: dict[Side, list[Record]]) -> list[str]:
    values = [median(of_side, name) for of_side in records.values()]
    shown = [bench_table.number(value) if value is not None else "never" for value in values]
    first, second = values
    ratio = bench_table.number(first / second) if first is not None and second else ""
    return [title, *shown, ratio]


def table(records: dict[Side, list[Record]]) -> str:
    known = set.intersection(*(set(record) for of_side in records.values() for record in of_side))
    rows = [row(title, name, records) for title, name in ROWS.items() if name in known]
    first, second = (side.title for side in records)
    return bench_table.table(["median of all rounds", first, second, f"{first} / {second}"], rows)


def in_turns(
    sides: tuple[Side, Side], rounds: int, run: Callable[[Side], Record]
) -> dict[Side, list[Record]]:
    """Either side is first in every other round."""
    records = {side: [] for side in sides}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for side in sides if number % 2 == 0 else reversed(sides):
            records[side].append(run(side))
    return records


def run() -> int:
    options = parse()
    tools = setup.tools()
    sides = compared(options)
    built = bench_sides.with_c(kvm_plan.LANE, tools)
    programs.build()
    images = {side.ksm: built[side.ksm].images() for side in sides}
    records = in_turns(
        sides, options.rounds, lambda side: run_once(options, side, images[side.ksm])
    )
    print(table(records))
    return 0


if __name__ == "__main__":
    main(run)
