# SPDX-License-Identifier: GPL-2.0
"""The VM's memory in huge pages, which benchmarks and profiles have it in."""

import re
import subprocess
from pathlib import Path

import pytest

from harness import children_of, wait_for
from ksmlab import bench_guest
from ksmlab.paths import REPO

USED_KIB = 64 << 10


@pytest.mark.skipif(not bench_guest.can_mount(), reason="nobody may mount anything here")
def test_a_vms_memory_is_mapped_by_huge_pages(vm):
    """Asks the machine, about the process that the VM is, while the VM uses its memory."""
    script = f"head -c {USED_KIB}K /dev/zero > /tmp/x; touch /mnt/share/used; sleep 1000"
    words = ["run", "--lane", "um", "--ksm", "c", "--huge-pages"]
    command = [REPO / "tools/vm", *words, "--share", vm.directory, "--", "sh", "-c", script]
    tool = subprocess.Popen(command)
    try:
        wait_for((vm.directory / "used").exists, 120)
        assert max(map(in_huge_pages_kib, children_of(tool.pid))) > USED_KIB
    finally:
        tool.terminate()
        tool.wait()


def in_huge_pages_kib(pid: int) -> int:
    """How much shared memory a process maps by huge pages."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"^ShmemPmdMapped: +(\d+) kB", text, re.M)[1])


def test_only_user_mode_linux_has_the_choice(vm):
    result = vm.run("true", lane="x86", ksm="c", huge_pages=True)
    assert result.status
    assert "--huge-pages is for --lane um" in result.stderr
