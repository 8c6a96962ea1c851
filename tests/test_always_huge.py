# SPDX-License-Identifier: GPL-2.0
"""Cases on a kernel that puts all memory into huge pages where it can, as Debian's does."""

import subprocess

import pytest
from harness import REPO, limit, needs
from ksmlab import programs

import seeds

# What they are about does not depend on the size of pages.
KINDS = ("merge-", "cow-", "unmerge-", "fork-", "attempt-", "contents-")

SECONDS = 900

# Compaction that nobody asks for moves pages, which cases take for copies.
KERNEL = "transparent_hugepage=always sysctl.vm.compaction_proactiveness=0"


def names() -> list[str]:
    command = [programs.directory() / "ksm-case", "LIST"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [line.split("\t") for line in listing.splitlines()]
    return [name for name, lanes, *_ in rows if name.startswith(KINDS) and "x86" in lanes]


@pytest.mark.timeout(limit(SECONDS))
def test_cases_in_huge_pages(vm, tmp_path):
    share = tmp_path / "cases"
    share.mkdir()
    command = [REPO / "tests/run-cases", "/mnt/share", needs("x86")["timeout"], seeds.chosen()]
    done = vm.run(
        *map(str, [*command, *names()]),
        lane="x86",
        mem="1G",
        share=share,
        append=KERNEL,
        timeout=SECONDS,
    )
    assert done.status == 0, done.explain()
    statuses = {name: (share / f"{name}.status").read_text().strip() for name in names()}
    failed = [name for name, status in statuses.items() if status != "0"]
    assert len(statuses) >= 30
    assert not failed, "\n".join((share / name).read_text() for name in failed)
