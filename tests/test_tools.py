# SPDX-License-Identifier: GPL-2.0
"""Parts of tools/ksmlab that decide whether a result can be trusted."""

import os

import pytest

from ksmlab import config, console, machine, reuse
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
    ],
)
def test_trouble_is_seen(line):
    assert console.trouble(f"[    0.5] Linux version\n{line}\n[    2.0] more") == line


def test_an_ordinary_boot_is_no_trouble():
    assert console.trouble("[    0.0] Linux version 7.3\n[    0.1] Freeing unused memory") is None


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


def test_options_that_kconfig_ignored_are_named(tmp_path):
    made = tmp_path / ".config"
    made.write_text('CONFIG_A=y\nCONFIG_S="x"\n# CONFIG_B is not set\n')
    config.check('# comment\nCONFIG_A=y\nCONFIG_S="x"\n# CONFIG_C is not set\n', made)
    with pytest.raises(Failure, match="CONFIG_B=y .it is n."):
        config.check("CONFIG_A=y\nCONFIG_B=y\n", made)


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
    reuse.date_patched_files(old, new)
    assert (new / "same.c").stat().st_mtime == 1000
    assert (new / "changed.c").stat().st_mtime > 1000
