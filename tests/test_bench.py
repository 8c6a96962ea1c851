# SPDX-License-Identifier: GPL-2.0
"""The benchmark: that it measures something, and that its arithmetic is right."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import harness

from ksmlab import (
    bench_command,
    bench_goals,
    bench_plan,
    bench_sides,
    bench_table,
    flavour,
    programs,
    setup,
    source,
)
from ksmlab.bench_goals import SCAN, Verdict
from ksmlab.bench_plan import Job
from ksmlab.bench_results import Result, load_all
from ksmlab.paths import REPO
from ksmlab.say import Failure

ABOUT = {"date": "today", "cpu": "1 x CPU", "kernel": "7.3", "module": "0"}


def result(workload: str, c: list, rs: list, measure=SCAN, mib=256, lane="um") -> Result:
    samples = {"c": [{measure: v} for v in c], "rs": [{measure: v} for v in rs]}
    return Result(workload, mib, lane, ABOUT, samples)


def keyed(*results: Result) -> dict:
    return {(one.workload, one.mib): one for one in results}


def small_workloads() -> tuple[str, ...]:
    """Those that a VM of this kind of kernel has memory for."""
    if flavour.usual() == flavour.ORDINARY:
        return bench_plan.WORKLOADS
    # It forks 10,000 processes, each of which takes 200 KiB of a debug kernel.
    return tuple(name for name in bench_plan.WORKLOADS if name != "holds")


@pytest.mark.parametrize("ksm", ["c", "rs"])
def test_every_workload_runs(vm, ksm):
    names = small_workloads()
    script = f"for name in {' '.join(names)}; do ksm-bench run $name --mib 4 --scans 2 --rounds 1; done"
    done = vm.run("sh", "-ec", script, ksm=ksm, mem="512M")
    assert done.status == 0, done.explain()
    records = [json.loads(line) for line in done.text.splitlines()]
    assert [record["workload"] for record in records] == list(names)
    for record in records:
        measures = record["measures"].items()
        # The scheduler's account of so short a time may be 0.
        costs = {name: value for name, value in measures if name not in bench_goals.CHECKS}
        assert costs, record
        assert all(value > 0 for name, value in costs.items() if "_ns" in name), record


@pytest.mark.timeout(harness.limit(900))
@pytest.mark.parametrize("ksm", ["c", "rs"])
def test_every_workload_of_huge_pages_runs(vm, ksm):
    for name in bench_plan.HUGE:
        words = f"ksm-bench run {name} --mib 8 --scans 2 --rounds 1".split()
        done = vm.run(*words, lane="x86", ksm=ksm, mem="1G", timeout=600)
        assert done.status == 0, done.explain()
        record = json.loads(done.text)
        assert record["measures"] or record["curves"], record


def test_the_plan_names_the_programs_workloads():
    program = programs.directory() / "ksm-bench"
    listed = subprocess.run([program, "list"], capture_output=True, text=True, check=True).stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == list(bench_plan.ALL)


def test_either_ksm_is_first_in_turns():
    orders = Job("unique", 64, 3).orders(["c", "rs"])
    assert orders == [["c", "rs"], ["rs", "c"], ["c", "rs"]]


@pytest.mark.parametrize(
    ("arguments", "rounds"),
    [
        (["--workloads", "unique,cow"], [5, 15]),
        (["--workloads", "unique,cow", "--rounds", "3"], [3, 3]),
        (["--workloads", "unique,madvise", "--lane", "x86"], [2, 2]),
        (["--workloads", "unique,cow", "--quick"], [1, 1]),
    ],
)
def test_each_workload_has_its_rounds(monkeypatch, arguments, rounds):
    monkeypatch.setattr("sys.argv", ["tools/bench", *arguments])
    assert [job.rounds for job in bench_command.jobs(bench_command.parse())] == rounds


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], {}),
        (["--set", "skip_untouched=1", "--parameters", "in_sync=1"], {"set": "with skip_untouched=1 in_sync=1"}),
    ],
)
def test_results_tell_what_was_set(monkeypatch, arguments, told):
    monkeypatch.setattr("sys.argv", ["tools/bench", *arguments])
    assert bench_command.other_than_usual(bench_command.parse()) == told


def test_large_jobs_are_left_out(monkeypatch, capsys):
    monkeypatch.setattr(bench_command, "available_mib", lambda: 4096)
    small, large = Job("unique", 1024, 1), Job("unique", 8192, 1)
    assert bench_command.fitting([small, large]) == [small]
    assert "unique-8192" in capsys.readouterr().err


def test_ratio_is_that_of_the_medians():
    ratio = result("unique", c=[10, 30, 20], rs=[2, 5, 4]).ratio(SCAN)
    assert (ratio.median, ratio.lowest, ratio.highest) == (5, 5, 6)


def test_more_is_better_for_what_is_gained():
    gained = result("pairs", c=[10], rs=[40], measure="saved_pages_per_cpu_s")
    assert gained.ratio("saved_pages_per_cpu_s").median == 4


def test_nothing_is_divided_by_zero():
    assert result("zero", c=[1], rs=[0]).ratio(SCAN) is None


def test_results_survive_their_files(tmp_path):
    um, x86 = result("unique", [4], [2]), result("unique", [9], [3], lane="x86")
    for one in (um, x86):
        one.save(tmp_path)
    assert load_all(tmp_path, "um", None) == keyed(um)
    assert load_all(tmp_path, "x86", None) == keyed(x86)
    record = json.loads((tmp_path / "unique-256.json").read_text())
    assert record["medians"] == {"c": {SCAN: 4}, "rs": {SCAN: 2}}
    assert record["ratios"] == {SCAN: {"median": 2, "lowest": 2, "highest": 2}}


def test_curves_survive_their_files(tmp_path):
    one = result("mixed", [1], [1], measure="merged_percent")
    one.curves = {"c": [{"merged_percent": [1.0, 2.0]}], "rs": [{"merged_percent": [3.0, 4.0]}]}
    one.save(tmp_path)
    assert load_all(tmp_path, "um", None) == keyed(one)


def test_goals_are_missed_or_met():
    missed = bench_table.missed(keyed(result("unique", [79], [10]), result("vmas", [11], [10])))
    assert missed == ["unique at 256 MiB: scan_ns_per_page: 7.90, not 8.00"]
    assert bench_table.missed(keyed(result("unique", [80], [10]))) == []


def with_below(rounds: int, below: int) -> Result:
    """By a little more than the others are above."""
    return result("cow", c=[100] * rounds, rs=[102] * below + [99] * (rounds - below))


@pytest.mark.parametrize(
    ("rounds", "below", "verdict"),
    [
        (5, 2, Verdict.MET),
        (5, 4, Verdict.LEVEL),
        (5, 5, Verdict.MISSED),
        (15, 8, Verdict.LEVEL),
        (15, 11, Verdict.LEVEL),
        (15, 12, Verdict.MISSED),
    ],
)
def test_a_few_rounds_below_one_are_chance(rounds, below, verdict):
    assert bench_goals.verdict(with_below(rounds, below), SCAN) is verdict


def test_only_what_need_not_be_cheaper_can_be_level():
    assert bench_goals.verdict(result("unique", [79] * 5, [10] * 5), SCAN) is Verdict.MISSED


def test_what_is_level_is_named():
    (line,) = bench_table.missed(keyed(with_below(15, 11)))
    assert line.endswith("0.98, not 1.00, which 15 rounds do not tell apart")


def test_instructions_have_no_goal():
    assert bench_table.missed(keyed(result("unique", [1], [10], lane="x86"))) == []


def test_growth_is_limited():
    def at(largest):
        small = result("unique", [100], [100], mib=bench_goals.SMALLEST_MIB)
        large = result("unique", [900], [largest], mib=bench_goals.LARGEST_MIB)
        return [limit.verdict for limit in bench_goals.limits(keyed(small, large))]

    assert at(150) == [Verdict.MET]
    assert at(151) == [Verdict.MISSED]


def test_growth_at_the_defaults_is_limited():
    def at(largest):
        small = result("default-pairs", [100], [100], "first_ns_per_page")
        middle = result("default-pairs", [500], [500], "first_ns_per_page", mib=2048)
        large = result("default-pairs", [130], [largest], "first_ns_per_page", mib=16384)
        (limit,) = bench_goals.limits(keyed(small, middle, large))
        assert limit.what == "default-pairs: first_ns_per_page at 16384 MiB / at 256 MiB"
        assert limit.c == 1.3
        return limit.verdict

    assert at(120) is Verdict.MET
    assert at(121) is Verdict.MISSED


def test_growth_at_the_defaults_needs_two_sizes():
    assert bench_goals.limits(keyed(result("default-pairs", [9], [9], "first_ns_per_page"))) == []


def test_the_largest_jobs_fit_a_machine_of_24_gib():
    assert max(job.memory_mib() for job in bench_plan.full()) < 22 * 1024 * bench_command.MEMORY_SHARE


def test_growth_of_each_cost_is_shown():
    sizes = [result("default-same", [mib], [1], "steady_ns_per_page", mib) for mib in (256, 2048)]
    page = bench_table.page(keyed(*sizes))
    assert "| default-same: steady_ns_per_page | 2048 | 2,048 | 1.00 |" in page


def test_a_scan_is_compared_with_one_pass():
    scan = result("unique", [5000], [400])
    reference = result("reference", [200], [200], measure=bench_goals.CHECKSUM_PASS)
    (limit,) = bench_goals.limits(keyed(scan, reference))
    assert (limit.c, limit.rs, limit.verdict) == (25, 2, Verdict.MET)


def test_table_is_aligned():
    page = bench_table.page(keyed(result("unique", [6400, 6500], [800, 812.5])))
    assert "| unique: scan_ns_per_page | 6,450 |  806 |  8.00 |  8.00 to 8.00 | 8.00 | yes |" in page


def based(workload: str, base: list, rs: list, measure=SCAN, mib=256, lane="um") -> Result:
    """Compared with another commit."""
    samples = {"base": [{measure: v} for v in base], "rs": [{measure: v} for v in rs]}
    return Result(workload, mib, lane, ABOUT, samples, base="0123456789ab")


def test_other_commits_have_files_of_their_own(tmp_path):
    c, base = result("unique", [4], [2]), based("unique", [4], [3])
    for one in (c, base):
        one.save(tmp_path)
    assert load_all(tmp_path, "um", None) == keyed(c)
    assert load_all(tmp_path, "um", base.base) == keyed(base)
    assert load_all(tmp_path, "um", "another") == {}


@pytest.mark.parametrize("lane", ["um", "x86"])
@pytest.mark.parametrize(
    ("measure", "base", "rs", "verdict"),
    [
        (SCAN, 97, 100, Verdict.MET),
        (SCAN, 96, 100, Verdict.MISSED),
        ("metadata_bytes_per_page", 96, 100, Verdict.MISSED),
        ("first_mmap_lock_us", 96, 100, Verdict.MISSED),
        ("merged_percent", 100, 97, Verdict.MET),
        ("merged_percent", 100, 96, Verdict.MISSED),
    ],
)
def test_nothing_may_be_worse_than_at_another_commit(lane, measure, base, rs, verdict):
    one = based("unique", [base] * 5, [rs] * 5, measure, lane=lane)
    assert bench_goals.verdict(one, measure) is verdict
    assert bool(bench_table.missed(keyed(one))) == (verdict is Verdict.MISSED)


def test_goals_beside_c_do_not_apply_to_another_commit():
    """Neither ratios nor limits."""
    metadata = based("pairs", [99], [99], "metadata_bytes_per_page")
    assert bench_table.missed(keyed(based("unique", [10], [10]), metadata)) == []


def test_a_median_that_one_round_has_made_worse_is_named_as_level():
    (line,) = bench_table.missed(keyed(based("cow", [96], [100])))
    assert line.endswith("0.96, not 0.97, which one round does not tell apart")


def test_all_sizes_are_compared_with_another_commit():
    small, large = (based("unique", [96] * 5, [100] * 5, mib=mib) for mib in (256, 8192))
    assert len(bench_table.missed(keyed(small, large, based("cow", [1], [1])))) == 2


def test_reference_says_nothing_about_another_commit():
    assert bench_table.missed(keyed(based("reference", [1] * 5, [9] * 5))) == []


def test_only_what_both_sides_measure_is_compared():
    one = based("holds", [1], [1], "first_mmap_lock_us")
    one.samples["rs"][0]["first_slots_us"] = 3.0
    assert one.measures == ["first_mmap_lock_us"]
    assert "first_slots_us" not in bench_table.page(keyed(one))


def test_the_table_names_the_other_commit():
    page = bench_table.page(keyed(based("unique", [800], [400])))
    assert "| at 256 MiB               | 0123456789ab | work tree | ratio |" in page
    assert "|          800 |       400 |  2.00 |  2.00 to 2.00 |     0.97 | yes |" in page


def git(repo, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.example")
    command = ["git", "-C", repo, *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with three commits, the first of which has no module."""
    monkeypatch.setenv("KSM_RS_CACHE", str(tmp_path / "cache"))
    repo = tmp_path / "repo"
    repo.mkdir()
    monkeypatch.setattr(bench_sides, "REPO", repo)
    git(repo, "init", "-q")
    commit(repo, "README.md", "old")
    for path in bench_sides.NEEDED[:-1]:
        (repo / path).parent.mkdir(exist_ok=True)
        (repo / path).write_text("")
    commit(repo, "configs/um.config", "CONFIG_A=y")
    commit(repo, "configs/um.config", "CONFIG_B=y")
    return repo


def commit(repo, path: str, text: str) -> None:
    (repo / path).parent.mkdir(exist_ok=True)
    (repo / path).write_text(text)
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", text)


def test_a_commit_is_taken_out_of_the_repository(repository):
    name = bench_sides.commit_of("HEAD~1")
    assert name == git(repository, "rev-parse", "HEAD~1")[:12]
    tree = bench_sides.sources_of(name)
    assert tree.name == name
    assert (tree / "configs/um.config").read_text() == "CONFIG_A=y"
    (tree / "mark").touch()
    assert (bench_sides.sources_of(name) / "mark").exists(), "it is taken out once"


def test_an_unknown_commit_is_named(repository):
    with pytest.raises(Failure, match="git knows no commit 'nonsense'"):
        bench_sides.commit_of("nonsense")


def test_a_commit_without_a_module_is_refused(repository):
    with pytest.raises(Failure, match="has no module and kernel: Kbuild is missing"):
        bench_sides.sources_of(bench_sides.commit_of("HEAD~2"))


def patched_name(_found, *of) -> Path:
    """Of a patched source, what tells it from others."""
    return Path(source.identity_of(source.series(*of)))


@pytest.mark.parametrize("changed", [None, "configs/um.config", "patches/series"])
def test_another_commit_has_its_own_kernel_if_that_differs(tmp_path, monkeypatch, changed):
    """Its module is its own in any case."""
    other = tmp_path / "other"
    for name in ("configs", "patches"):
        shutil.copytree(REPO / name, other / name)
    if changed == "configs/um.config":
        (other / changed).write_text("CONFIG_A=y\n")
    if changed == "patches/series":
        (other / changed).write_text("")
    monkeypatch.setattr(bench_sides, "sources_of", lambda commit: other)
    monkeypatch.setattr(source, "patched", patched_name)
    sides = bench_sides.with_base("um", setup.tools(), "0123456789ab")
    same = "the same kernel"
    assert (bench_command.base_kernel(sides) == same) == (changed is None)
    assert [side.repo for side in sides.values()] == [other, REPO]


def test_drawings_show_what_was_found(tmp_path):
    for mib in (64, 256):
        one = result("unique", [6400], [800], mib=mib)
        one.save(tmp_path)
    result("sparse", [10], [20], "scan_ns").save(tmp_path)
    mixed = result("mixed", [1], [1], measure="merged_percent")
    mixed.curves = {ksm: [{"merged_percent": [9.0, 80.0]}] for ksm in ("c", "rs")}
    mixed.save(tmp_path)
    bench_command.draw(tmp_path, "um", None)
    ratios, cost, growth, shares = (
        (tmp_path / f"{name}.svg").read_text() for name in ("ratios", "cost", "growth", "mixed")
    )
    assert "unique pages" in ratios and "8.00" in ratios and "0.50" in ratios
    assert "6,400 / 800" in cost and "10.0 / 20.0" in cost
    assert "Rust" in growth
    assert "of all duplicates, merged" in shares and "late" not in shares
    bench_command.draw(tmp_path, "um", None)
    assert (tmp_path / "ratios.svg").read_text() == ratios


def test_the_drawing_of_huge_pages_names_each_threshold(tmp_path):
    one = result("huge-curve", [1], [1], measure="nothing", lane="x86")
    names = [f"{kind}_percent_of_{of}" for kind in ("saved", "whole") for of in ("0.2", "2", "20")]
    all_four = {name: [10.0, 10.0, 30.0, 40.0] for name in names}
    all_four |= {"saved_percent_of_100": [5.0, 6.0, 7.0, 8.0], "whole_percent_of_100": [0.0] * 4}
    one.curves = {"c": [{name: values[:1] for name, values in all_four.items()}], "rs": [all_four]}
    one.save(tmp_path)
    bench_command.draw(tmp_path, "x86", None)
    drawing = (tmp_path / "huge-x86.svg").read_text()
    assert "1, 8" in drawing and "256" in drawing and ">C<" in drawing
    assert "0.2 % of pages have an equal" in drawing


def test_drawings_name_the_other_commit(tmp_path):
    one = based("unique", [800], [400])
    one.save(tmp_path)
    bench_command.draw(tmp_path, "um", one.base)
    (ratios, cost) = (
        (tmp_path / f"{name}-{one.base}.svg").read_text() for name in ("ratios", "cost")
    )
    assert f"Cost: {one.base} / work tree, 256 MiB" in ratios and "2.00" in ratios
    assert f"(grey: {one.base}, brown: work tree)" in cost
    assert not (tmp_path / f"growth-{one.base}.svg").exists()


def test_a_curve_is_the_median_of_all_rounds():
    one = result("mixed", [1], [1])
    one.curves = {"c": [{"x": [1, 9]}, {"x": [2, 8, 7]}, {"x": [6, 3]}], "rs": []}
    assert one.curve("c", "x") == [2, 8]
    assert one.curve("c", "y") == one.curve("rs", "x") == []
