# SPDX-License-Identifier: GPL-2.0
"""A host with guests, under the kernel's own KSM and under ksm_rs in turns: how much
each merges, and what that costs ksmd."""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable

from . import bench_guest, bench_sides, bench_table, kvm_plan, programs, setup, vm
from .bench_guest import whole
from .machine import Images, Request
from .main import main
from .say import Failure, say

SIDES = ("c", "rs")

# What is printed, and how it is called in a program's record.
ROWS = {
    "duplicate pages": "duplicates",
    "pages shared": "pages_shared",
    "pages saved": "pages_sharing",
    "percent of the duplicates": "percent",
    "seconds until 95 %": "seconds",
    "seconds of ksmd until 95 %": "ksmd_seconds",
}

# Linux in a guest of an emulated machine takes its time.
TIMEOUT = {"guests": 900, "qemu": 3000}

Record = dict[str, float]


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
    return parser.parse_args()


def command(options: argparse.Namespace) -> list[str]:
    """Locking is not proved, which is not to be measured."""
    words = ["--json"]
    for name in ("guests", "mib"):
        value = getattr(options, name)
        words += [f"--{name}", str(value)] if value else []
    program = kvm_plan.qemu(*words) if options.qemu else kvm_plan.guests("--victims", "0", *words)
    return bench_guest.unproved(program)


def run_once(options: argparse.Namespace, ksm: str, images: Images) -> Record:
    machine = {**(kvm_plan.QEMU_MACHINE if options.qemu else kvm_plan.MACHINE)}
    if options.icount:
        machine["cpus"] = 1
    request = Request(
        command=command(options),
        lane=kvm_plan.LANE,
        ksm=ksm,
        icount=options.icount,
        timeout=TIMEOUT["qemu" if options.qemu else "guests"],
        **machine,
    )
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        status = vm.run(request, images, (out.fileno(), err.fileno()))
        texts = [whole(file) for file in (out, err)]
    if status:
        raise Failure(f"the run under {ksm} ended with {status}:\n{''.join(texts)}")
    return json.loads(texts[0].splitlines()[-1])


def median(records: list[Record], name: str) -> float | None:
    """None if one of the runs never came so far."""
    values = [record[name] for record in records]
    return None if None in values else statistics.median(values)


def row(title: str, name: str, records: dict[str, list[Record]]) -> list[str]:
    c, rs = (median(records[ksm], name) for ksm in SIDES)
    shown = [bench_table.number(value) if value is not None else "never" for value in (c, rs)]
    ratio = bench_table.number(c / rs) if c is not None and rs else ""
    return [title, *shown, ratio]


def table(records: dict[str, list[Record]]) -> str:
    rows = [row(title, name, records) for title, name in ROWS.items()]
    return bench_table.table(["median of all rounds", "C", "Rust", "C / Rust"], rows)


def in_turns(rounds: int, run: Callable[[str], Record]) -> dict[str, list[Record]]:
    """Either KSM is first in every other round."""
    records = {ksm: [] for ksm in SIDES}
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        for ksm in SIDES if number % 2 == 0 else reversed(SIDES):
            records[ksm].append(run(ksm))
    return records


def run() -> int:
    options = parse()
    tools = setup.tools()
    sides = bench_sides.with_c(kvm_plan.LANE, tools)
    programs.build()
    images = {ksm: side.images() for ksm, side in sides.items()}
    print(table(in_turns(options.rounds, lambda ksm: run_once(options, ksm, images[ksm]))))
    return 0


if __name__ == "__main__":
    main(run)
