# SPDX-License-Identifier: GPL-2.0
"""The benchmark's results as tables, in Markdown that is readable as it is."""

from . import bench_goals
from .bench_goals import CHECKS, PER_PAGE, Limit, Results, Verdict
from .bench_plan import ALL, DEFAULTS, GROWING
from .bench_results import Result

# What the growth of a workload is shown by; of those at the default settings, by all costs of a page.
GROWTH_MEASURE = {"unique": "scan_ns_per_page", "same": "steady_ns_per_page"}

# Workloads that are run at more sizes than others.
AT_MANY_SIZES = (*GROWING, *DEFAULTS)


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they must be; all but the first to the right."""
    columns = list(zip(head, *rows))
    widths = [max(map(len, column)) for column in columns]

    def line(cells) -> str:
        aligned = [
            cell.ljust(width) if index < 1 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths))
        ]
        return f"| {' | '.join(aligned)} |"

    rule = [
        "-" * width if index < 1 else "-" * (width - 1) + ":" for index, width in enumerate(widths)
    ]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def row(result: Result, measure: str) -> list[str]:
    medians = list(map(number, result.medians(measure)))
    ratio = result.ratio(measure)
    wanted = bench_goals.ratio_wanted(result, measure)
    name = f"{result.workload}: {measure}"
    if ratio is None:
        return [name, *medians, "", "", "", ""]
    spread = f"{number(ratio.lowest)} to {number(ratio.highest)}"
    goal = [number(wanted), bench_goals.verdict(result, measure)] if wanted else ["", ""]
    return [name, *medians, number(ratio.median), spread, *goal]


def ratios(results: Results, mib: int) -> str:
    """All measures of all workloads at one size."""
    found = [results[workload, mib] for workload in ALL if (workload, mib) in results]
    rows = [
        row(result, measure)
        for result in found
        for measure in result.measures
        if measure not in CHECKS
    ]
    goal = "at least" if base_of(results) else "goal"
    head = [f"at {mib} MiB", *sides(results), "ratio", "single rounds", goal, "met"]
    return table(head, rows)


def base_of(results: Results) -> str | None:
    """The commit that ours was compared with, if it was not C."""
    return next(iter(results.values())).base


def sides(results: Results) -> tuple[str, str]:
    """What the heads of columns call both."""
    base = base_of(results)
    return (base, "work tree") if base else ("C", "Rust")


def sizes_of(results: Results, workload: str) -> list[int]:
    return sorted(mib for name, mib in results if name == workload)


def at_all_sizes(results: Results, workload: str) -> list[Result]:
    return [results[workload, mib] for mib in sizes_of(results, workload)]


def growth(results: Results) -> str:
    """Cost of a page over the amount of memory."""
    rows = []
    for workload in AT_MANY_SIZES:
        found = at_all_sizes(results, workload)
        for measure in growth_measures(found):
            for result in found:
                medians = map(number, result.medians(measure))
                rows.append([f"{workload}: {measure}", str(result.mib), *medians])
    return table(["growth", "MiB", *sides(results)], rows)


def growth_measures(found: list[Result]) -> list[str]:
    """What is shown of a workload that was run at these sizes."""
    if not found:
        return []
    if found[0].workload in GROWTH_MEASURE:
        return [GROWTH_MEASURE[found[0].workload]]
    return [name for name in found[0].measures if name.endswith(PER_PAGE)]


def limits(found: list[Limit]) -> str:
    rows = [
        [one.what, number(one.c), number(one.rs), number(one.most), one.verdict]
        for one in found
    ]
    return table(["limit", "C", "Rust", "at most", "met"], rows)


def missed(results: Results) -> list[str]:
    """What is not as it ought to be, in words."""
    lines = []
    for (workload, mib), result in results.items():
        for measure in result.measures if mib in sizes(results) else []:
            if bench_goals.verdict(result, measure) in (Verdict.LEVEL, Verdict.MISSED):
                lines.append(f"{workload} at {mib} MiB: {measure}: {shortfall(result, measure)}")
    return lines + [
        f"{one.what}: {number(one.rs)}, more than {number(one.most)}"
        for one in bench_goals.limits(results)
        if one.verdict is Verdict.MISSED
    ]


def shortfall(result: Result, measure: str) -> str:
    wanted, reached = bench_goals.ratio_wanted(result, measure), result.ratio(measure).median
    level = bench_goals.verdict(result, measure) is Verdict.LEVEL
    hedge = f", which {hedged(len(result.single(measure)))} not tell apart" if level else ""
    return f"{number(reached)}, not {number(wanted)}{hedge}"


def hedged(rounds: int) -> str:
    return "one round does" if rounds == 1 else f"{rounds} rounds do"


def sizes(results: Results) -> list[int]:
    """Those that have a table of their own: beside C, not those at which only growth is looked at."""
    others = {mib for name, mib in results if name not in AT_MANY_SIZES or base_of(results)}
    return sorted(others or {mib for _, mib in results})


def preface(results: Results) -> str:
    """What the numbers are, and when and where they were found."""
    results = list(results.values())
    found = sorted({", ".join(one.circumstances.values()) for one in results})
    clock = "nanoseconds" if results[0].lane == "um" else "instructions, where it says nanoseconds"
    return "\n".join([f"Medians, in {clock}; date, CPU, kernel and module:", "", *bullets(found)])


def bullets(lines: list[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def page(results: Results) -> str:
    """All tables."""
    parts = [preface(results), *(ratios(results, mib) for mib in sizes(results))]
    if any(len(sizes_of(results, name)) > 1 for name in AT_MANY_SIZES):
        parts.append(growth(results))
    found = bench_goals.limits(results)
    if found:
        parts.append(limits(found))
    return "\n\n".join(parts) + "\n"
