# SPDX-License-Identifier: GPL-2.0
"""Parts of tools/ksmlab that decide whether a result can be trusted."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import conftest
import harness
import seeds
from ksmlab import (
    checks,
    console,
    flavour,
    kernel,
    machine,
    paths,
    programs,
    prune,
    reuse,
    source,
    test_command,
)
from ksmlab.say import Failure


@pytest.mark.parametrize(
    "line",
    [
        "[    1.0] Kernel panic - not syncing: sysrq triggered crash",
        "[    1.0] BUG: kernel NULL pointer dereference, address: 0",
        "[    1.0] Oops: 0000 [#1] PREEMPT SMP",
        "[    1.0] WARNING: CPU: 0 PID: 1 at mm/ksm.c:1 f+0x1/0x2",
        "[    1.0] WARNING: possible circular locking dependency detected",
        "[    1.0] INFO: task cat:12 blocked for more than 120 seconds.",
        "[    1.0] INFO: rcu_sched self-detected stall on CPU",
        "[    1.0] BUG: KASAN: slab-use-after-free in f+0x1/0x2",
        "[    1.0] UBSAN: array-index-out-of-bounds in mm/ksm.c:1:1",
        "[    1.0] BUG: sleeping function called from invalid context at mm/x.c:1",
        "[    1.0] Bad rss-counter state mm:0 type:MM_ANONPAGES val:1",
        "[    1.0] BUG: scheduling while atomic: cat/12/0x00000002",
        "[    1.0] BUG: KCSAN: data-race in f / g",
        "[    1.0] BUG: MAX_LOCKDEP_CHAINS too low!",
        "[    1.0] INFO: trying to register non-static key.",
        "[    1.0] turning off the locking correctness validator.",
        "[    1.0] DEBUG_LOCKS_WARN_ON(lock->magic != lock)",
        "[    1.0] WARNING: lock held when returning to user space!",
        "[    1.0] WARNING: bad unlock balance detected!",
        "[    1.0] [ BUG: Invalid wait context ]",
        "[    1.0] WARNING: suspicious RCU usage",
        "[    1.0] pagealloc: memory corruption",
        "[    1.0] pagealloc: single bit error",
        "[    1.0] page dumped because: VM_BUG_ON_FOLIO(!folio_test_locked(folio))",
        "[    1.0] list_del corruption. prev->next should be ff, but was fe. (prev=fd)",
        "[    1.0] list_add double add: new=ff, prev=fe, next=fd.",
        "[    1.0] kernel BUG at lib/list_debug.c:62!",
        "[    1.0] BUG ksm (Not tainted): Objects remaining on __kmem_cache_shutdown()",
        "[    1.0] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "[    1.0] rust_kernel: panicked at rust/kernel/x.rs:1:1: attempt to add with overflow",
    ],
)
def test_trouble_is_seen(line):
    assert console.trouble(f"[    0.5] Linux version\n{line}\n[    2.0] more") == line


def test_an_ordinary_boot_is_no_trouble():
    log = """[    0.0] Linux version 7.3
[    0.0] Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar
[    0.1] Freeing unused memory
[    0.1] kmemleak: Kernel memory leak detector initialized (mem pool available: 15500)
[    0.2] UBSAN and KASAN are words
[    9.0] page dumped because: unmovable page
[    9.1] page dumped because: isolation failed
[    9.2] page dumped because: migration failure
"""
    assert console.trouble(log) is None


@pytest.mark.parametrize("variable", ["KSM_RS_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_links_to_the_cache_are_followed(monkeypatch, tmp_path, variable):
    """What a VM runs is there; a VM has a /tmp of its own, which a link could lead into."""
    for name in ("KSM_RS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    below = {"KSM_RS_CACHE": "", "XDG_CACHE_HOME": "ksm_rs", "HOME": ".cache/ksm_rs"}[variable]
    target = tmp_path / "target"
    target.mkdir()
    link = tmp_path / "link" / below
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    monkeypatch.setenv(variable, str(tmp_path / "link"))
    assert paths.cache() == target.resolve()


DEBUG_OPTIONS = [checks.KMEMLEAK, checks.LOCKDEP]


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"leaks": "", "lockdep": " debug_locks:   1"}, None),
        ({"leaks": "", "lockdep": " debug_locks:   0"}, "lockdep has switched itself off"),
        ({"leaks": ""}, "lockdep has switched itself off"),
        ({"lockdep": " debug_locks:   1"}, "kmemleak has switched itself off"),
    ],
)
def test_a_check_that_is_off_is_noticed(told, found):
    assert checks.silent(told.get, DEBUG_OPTIONS) == found


def test_an_ordinary_kernel_has_nothing_to_check():
    assert checks.silent({}.get, []) is None


def test_leaks_are_shown_with_places_in_the_module():
    told = {
        "leaks": "unreferenced object 0x6f000000\n  backtrace:\n    0x0000000062400010\n    f+0x1",
        "module": "ksm_rs 4096 0 - Live 0x0000000062400000 (O)",
    }
    found = checks.leaks(told.get)
    assert "kmemleak found 1 objects" in found
    assert "ksm_rs+0x10\n" in found
    assert "0x6f000000\n" in found
    assert checks.leaks({"leaks": ""}.get) is None


def test_only_known_flavours_are_taken_from_the_environment(monkeypatch):
    monkeypatch.setenv("KSM_RS_FLAVOUR", "")
    assert flavour.usual() == flavour.ORDINARY
    monkeypatch.setenv("KSM_RS_FLAVOUR", "debug")
    assert flavour.usual() == flavour.DEBUG
    monkeypatch.setenv("KSM_RS_FLAVOUR", "fast")
    with pytest.raises(Failure, match="KSM_RS_FLAVOUR is 'fast'"):
        flavour.usual()


def test_a_test_is_given_more_in_a_debug_kernel(monkeypatch):
    monkeypatch.setenv("KSM_RS_FLAVOUR", "ordinary")
    assert harness.needs("um", mem="1G") == {"timeout": harness.TIMEOUT["um"], "mem": "1024M"}
    monkeypatch.setenv("KSM_RS_FLAVOUR", "debug")
    assert harness.needs("um", timeout=10, mem="1G", numa="2") == {
        "timeout": 10 * harness.SLOWNESS["debug"],
        "mem": f"{1024 + harness.MORE_MIB['debug']}M",
    }
    assert "mem" not in harness.needs("um")


def test_a_build_starts_rather_from_one_of_its_flavour():
    builds = [Path(f"{name}-0123abcd") for name in ("um-rs", "um-c-debug", "um-c", "um-rs-debug")]
    names = {}
    for ksm, kind in itertools.product(("rs", "c"), (flavour.ORDINARY, flavour.DEBUG)):
        wanted = kernel.Kernel("um", ksm, kind, Path(), None, "", "")
        order = sorted(builds, key=lambda build: kernel.likeness(wanted, build), reverse=True)
        names[wanted.name] = [build.name.rpartition("-")[0] for build in order]
    assert names["um-rs-debug"][:2] == ["um-rs-debug", "um-c-debug"]
    assert names["um-rs"][:2] == ["um-rs", "um-c"]
    assert names["um-c"][:2] == ["um-c", "um-rs"]


@pytest.mark.parametrize(
    ("flags", "found"),
    [(0, None), (1 << 12 | 1 << 18, None), (1 << 9, "warning"), (1 << 7 | 1 << 9, "oops, warning")],
)
def test_taint(flags, found):
    assert console.taint(flags) == found


@pytest.mark.parametrize(("text", "size"), [("512M", 512 << 20), ("2g", 2 << 30), ("4096", 4096)])
def test_sizes(text, size):
    assert machine.bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "M", "many", "1.5G", "-1M"])
def test_bad_sizes(text):
    with pytest.raises(Failure):
        machine.bytes_of(text)


def test_dates_say_which_patched_files_differ_from_an_earlier_build(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for tree, changed in ((old, "1"), (new, "2")):
        tree.mkdir()
        (tree / "same.c").write_text("same")
        (tree / "changed.c").write_text(changed)
        (tree / ".ksm_rs-patched").write_text("same.c\nchanged.c\n")
        for name in ("same.c", "changed.c"):
            os.utime(tree / name, (1000, 1000))
    os.utime(new / "same.c")
    reuse.date_patched_files(old, new, 2000)
    assert (new / "same.c").stat().st_mtime == 1000
    assert (new / "changed.c").stat().st_mtime > 2000


def test_dates_are_those_of_one_tree_alone(tmp_path):
    old, new, linked = (tmp_path / name for name in ("old", "new", "linked"))
    for tree in (old, new, linked):
        tree.mkdir()
        (tree / ".ksm_rs-patched").write_text("changed.c\n")
    (old / "changed.c").write_text("1")
    (new / "changed.c").write_text("2")
    os.utime(new / "changed.c", (1000, 1000))
    (linked / "changed.c").hardlink_to(new / "changed.c")
    reuse.date_patched_files(old, linked, 2000)
    assert (linked / "changed.c").stat().st_mtime > 2000
    assert (new / "changed.c").stat().st_mtime == 1000


def test_what_others_were_built_from_keeps_its_date(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    for tree, content in ((old, "1"), (new, "2")):
        tree.mkdir()
        (tree / ".ksm_rs-patched").write_text("changed.c\n")
        (tree / "changed.c").write_text(content)
    os.utime(new / "changed.c", (1000, 1000))
    reuse.date_patched_files(old, new, 500)
    assert (new / "changed.c").stat().st_mtime == 1000


def make_build(directory: Path, name: str, used: float, tree: Path) -> Path:
    build = directory / name
    build.mkdir(parents=True)
    (build / "source").symlink_to(tree)
    (build / ".complete").touch()
    os.utime(build / ".complete", (used, used))
    return build


def make_source(directory: Path, name: str, used: float) -> Path:
    tree = directory / name
    tree.mkdir(parents=True)
    (tree / prune.SOURCE_MARK).touch()
    os.utime(tree / prune.SOURCE_MARK, (used, used))
    return tree


def test_a_build_whose_source_differs_least_is_started_from(tmp_path):
    wanted, near, far = (make_source(tmp_path / "src", f"debian-1-{key}", 0) for key in "abc")
    for tree, texts in ((wanted, "12"), (near, "13"), (far, "23")):
        (tree / prune.SOURCE_MARK).write_text("one.h\ntwo.c\n")
        for name, text in zip(("one.h", "two.c"), texts):
            (tree / name).write_text(text)
    builds = [
        make_build(tmp_path, name, used, tree)
        for name, used, tree in (("um-rs-1", 1000, near), ("um-rs-2", 2000, far))
    ]
    for build in builds:
        (build / ".complete").write_text("tools")
    assert reuse.best(builds, wanted, "tools", lambda build: ()) == builds[0]
    assert reuse.best(builds, wanted, "other tools", lambda build: ()) is None


def test_builds_not_used_for_long_are_dropped(tmp_path):
    tree = make_source(tmp_path / "src", "debian-1-aa", 0)
    old = [make_build(tmp_path, f"um-rs-{key}", 1000 + key, tree) for key in range(6)]
    prune.used_now(old[0] / ".complete")
    unlike = ("um-rs-debug-7", "um-c-7", "x86-rs-7")
    others = [make_build(tmp_path, name, 0, tree) for name in unlike]
    unfinished = tmp_path / "um-rs-9"
    unfinished.mkdir()
    prune.drop_builds(tmp_path, "um-rs")
    assert set(tmp_path.glob("*-*")) == {old[0], old[4], old[5], unfinished, *others}


def test_trees_of_commits_not_used_for_long_are_dropped(tmp_path):
    trees = [tmp_path / f"{number:012x}" for number in range(6)]
    for used, tree in enumerate(trees):
        (tree / "ksm_rs").mkdir(parents=True)
        os.utime(tree, (used, used))
    prune.used_now(trees[0])
    prune.drop_commits(tmp_path)
    assert set(tmp_path.iterdir()) == {trees[0], trees[4], trees[5]}


def test_sources_that_nothing_is_built_from_are_dropped(tmp_path):
    sources, builds = tmp_path / "src", tmp_path / "build"
    wanted, unwanted = (make_source(sources, f"debian-1-{key}", 0) for key in "ab")
    new = make_source(sources, "debian-1-c", time.time())
    make_build(builds, "um-rs-1", 0, wanted)
    prune.drop_sources(sources, builds)
    assert set(sources.iterdir()) == {wanted, new}
    assert not unwanted.exists()


def test_a_source_that_is_wanted_is_not_dropped(tmp_path, monkeypatch):
    monkeypatch.setenv("KSM_RS_CACHE", str(tmp_path))
    name = f"debian-1-{source.identity_of(source.series(flavour.ORDINARY))}"
    tree = make_source(tmp_path / "src", name, 0)
    assert source.patched(source.Source(tmp_path, "debian-1")) == tree
    prune.drop_sources(tmp_path / "src", tmp_path / "build")
    assert tree.exists()


MODULE_OF_TWO_GROUPS = """
import os, pathlib, pytest
IN_GROUPS = [pytest.param(group, marks=pytest.mark.xdist_group(group)) for group in 8 * "ab"]
@pytest.mark.parametrize("group", IN_GROUPS)
def test_it(group):
    with pathlib.Path(group).open("a") as file:
        print(os.environ["PYTEST_XDIST_WORKER"], file=file)
"""


def test_a_group_of_tests_is_run_by_one_worker(tmp_path):
    (tmp_path / "test_groups.py").write_text(MODULE_OF_TWO_GROUPS)
    command = [sys.executable, "-m", "pytest", *test_command.IN_PARALLEL]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    for group in "ab":
        workers = (tmp_path / group).read_text().split()
        assert len(workers) == 8
        assert len(set(workers)) == 1


def make(directory: Path, *words: str) -> str:
    """What `make` prints where each tool only prints its name and its arguments."""
    (directory / "tools").mkdir()
    shutil.copy(paths.REPO / "Makefile", directory)
    for name in ("bench", "programs", "test", "vm"):
        tool = directory / "tools" / name
        tool.write_text(f'#!/bin/sh\necho {name} "$@"${{KSM_RS_SEED:+ seed $KSM_RS_SEED}}\n')
        tool.chmod(0o755)
    command = ["make", "--no-print-directory", "-C", directory, *words]
    # Without the variables of a `make test` that we may be part of.
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize(("target", "program"), [("demo", "vm run"), ("shell", "vm shell")])
def test_only_the_program_itself_prints(tmp_path, target, program):
    (line,) = make(tmp_path, target).splitlines()
    assert line.startswith(program)


def test_scripts_are_told_where_the_programs_are(tmp_path):
    assert make(tmp_path, "programs") == "programs\n"


def test_make_passes_a_commit_on(tmp_path):
    said = make(tmp_path, "bench", "BASE=HEAD~3", "BENCH=--rounds 1")
    assert said == "bench --base HEAD~3 --rounds 1\n"


def test_make_passes_a_seed_on(tmp_path):
    assert make(tmp_path, "test", "SEED=7", "TESTS=-k fork") == "test -k fork seed 7\n"


def test_without_a_seed_each_run_chooses_one(monkeypatch):
    found = set()
    for _ in range(10):
        monkeypatch.setenv(seeds.VARIABLE, "")
        seeds.choose()
        found.add(seeds.chosen())
    assert len(found) > 1


def test_a_seed_that_is_given_is_taken(monkeypatch):
    monkeypatch.setenv(seeds.VARIABLE, "1234")
    seeds.choose()
    assert seeds.again() == "1234 (make test SEED=1234 takes it again)"


@pytest.mark.parametrize("given", ["seven", "-1", "1.5", str(1 << seeds.BITS)])
def test_a_bad_seed_is_refused(monkeypatch, given):
    monkeypatch.setenv(seeds.VARIABLE, given)
    with pytest.raises(ValueError, match="KSM_RS_SEED is"):
        seeds.choose()


MODULE_THAT_USES_SEEDS = """
import pytest
@pytest.mark.parametrize("number", range(4))
def test_it(number, seed):
    assert number < 3
"""


def test_all_workers_have_the_seed_and_failures_show_it(tmp_path):
    (tmp_path / "test_seeds.py").write_text(MODULE_THAT_USES_SEEDS)
    given = {**os.environ, seeds.VARIABLE: "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-rP", *test_command.IN_PARALLEL]
    done = subprocess.run(command, cwd=tmp_path, env=given, capture_output=True, text=True)
    shown = re.findall(r"^seed:? (\d+) \(make test SEED=", done.stdout, re.M)
    # Above all tests, with each of them, and below.
    assert len(shown) == 6, done.stdout
    assert len(set(shown)) == 1
    assert "3 passed, 1 failed" in done.stdout


MODULE_THAT_HANGS = """
import time, pytest
@pytest.mark.timeout(1)
def test_it():
    time.sleep(1000)
"""


def test_a_test_that_hangs_is_ended(tmp_path):
    (tmp_path / "test_hang.py").write_text(MODULE_THAT_HANGS)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", *test_command.IN_PARALLEL]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert "Timeout" in done.stdout
    assert done.stdout.endswith("0 passed, 1 failed\n")


def test_every_test_may_take_longer_than_its_vm(request):
    assert harness.limit(harness.TIMEOUT["x86"]) > harness.needs("x86")["timeout"]
    for item in request.session.items:
        assert item.get_closest_marker("timeout").args[0] >= conftest.limit_by_lane(item), item


# The programs may have to be compiled first.
@pytest.mark.timeout(harness.limit(900))
def test_the_programs_pass_their_own_tests():
    """Those of their parts that need no VM."""
    programs.test()


def test_a_given_tree_is_another_one_when_a_file_changes(tmp_path):
    makefile = tmp_path / "Makefile"
    makefile.write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
    deep = tmp_path / "mm/internal.h"
    deep.parent.mkdir()
    deep.touch()
    before = source.identity(tmp_path, source.newest_change(tmp_path))
    os.utime(deep, (2e9, 2e9))
    assert source.identity(tmp_path, source.newest_change(tmp_path)) != before
    (tmp_path / "mm/internal.o").touch()
    os.utime(tmp_path / "mm/internal.o", (3e9, 3e9))
    assert source.newest_change(tmp_path) == deep
