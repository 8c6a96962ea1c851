# SPDX-License-Identifier: GPL-2.0
"""The VM runner itself: if it were wrong, no other test would mean anything."""

import hashlib
import os
import signal
import subprocess

import pytest

from harness import LANES, children_of, wait_for
from ksmlab.paths import REPO

TIMED_OUT = 124
VM_FAILED = 125

pytestmark = pytest.mark.parametrize("lane", LANES)


def test_status_and_both_outputs_come_back(vm, lane):
    result = vm.run("sh", "-c", "echo to out; echo to err >&2; exit 3", lane=lane, ksm="c")
    assert result.status == 3
    assert result.stdout == b"to out\n"
    assert result.stderr.endswith("to err\n")


def test_output_is_exact(vm, lane):
    share = vm.directory / "share"
    share.mkdir()
    data = os.urandom(3_000_000)
    (share / "data").write_bytes(data)
    result = vm.run("cat", "/mnt/share/data", lane=lane, ksm="c", share=share)
    assert result.status == 0, result.explain()
    assert hashlib.sha256(result.stdout).digest() == hashlib.sha256(data).digest()


def test_share_is_writable(vm, lane):
    share = vm.directory / "share"
    share.mkdir()
    result = vm.run("sh", "-c", "echo hello > /mnt/share/x", lane=lane, ksm="c", share=share)
    assert result.status == 0, result.explain()
    assert (share / "x").read_text() == "hello\n"


def test_module_works_far_from_the_kernel(vm, lane):
    # In User Mode Linux it lies behind all memory: more than 32 bits can express.
    result = vm.run("cat", "/sys/kernel/mm/ksm/run", lane=lane, mem="6G")
    assert result.status == 0, result.explain()
    assert result.text == "0\n"


def test_machine_is_read_only(vm, lane):
    result = vm.run("touch", "/usr/x", lane=lane, ksm="c")
    assert result.status == 1
    assert "Read-only file system" in result.stderr


def test_filesystems_that_scripts_expect(vm, lane):
    script = """
        set -e
        test -e /proc/self/status -a -e /sys/kernel/mm -a -c /dev/null -a -c /dev/ptmx
        test -e /sys/fs/cgroup/cgroup.controllers
        touch /tmp/x /run/x /dev/shm/x
        python3 -c 'print("python", 6 * 7)'
    """
    result = vm.run("sh", "-c", script, lane=lane, ksm="c")
    assert result.status == 0, result.explain()
    assert result.stdout == b"python 42\n"


def test_c_is_the_kernels_own_ksm(vm, lane):
    result = vm.run("sh", "-c", "cat /sys/kernel/mm/ksm/run; lsmod", lane=lane, ksm="c")
    assert result.text.splitlines()[0] == "0"
    assert "ksm_rs" not in result.text


def test_rs_is_the_module(vm, lane):
    result = vm.run("sh", "-c", "cat /sys/kernel/mm/ksm/run; lsmod", lane=lane)
    assert result.status == 0, result.explain()
    assert result.text.splitlines()[0] == "0"
    assert "ksm_rs" in result.text


def test_processors_are_those_asked_for(vm, lane):
    options = {"um": {}, "x86": {"cpus": 2, "numa": 2}}[lane]
    result = vm.run("nproc", lane=lane, ksm="c", **options)
    assert result.text == f"{options.get('cpus', 1)}\n", result.explain()


def test_no_module_on_request(vm, lane):
    result = vm.run("sh", "-c", "lsmod; test -f $KSM_RS_KO", lane=lane, no_module=True)
    assert result.status == 0, result.explain()
    assert "ksm_rs" not in result.text


def test_panic_is_reported(vm, lane):
    result = vm.run("sh", "-c", "echo c > /proc/sysrq-trigger", lane=lane, ksm="c")
    assert result.status == VM_FAILED
    assert "FAILED: the kernel reported" in result.stderr
    assert "sysrq triggered crash" in result.stderr


def test_warning_in_the_log_is_reported(vm, lane):
    result = vm.run("sh", "-c", "echo 'WARNING: made up' > /dev/kmsg", lane=lane, ksm="c")
    assert result.status == VM_FAILED
    assert "WARNING: made up" in result.stderr


def test_taint_is_reported(vm, lane):
    result = vm.run("sh", "-c", "echo 512 > /proc/sys/kernel/tainted", lane=lane, ksm="c")
    assert result.status == VM_FAILED
    assert "tainted: warning" in result.stderr


def test_timeout_is_reported(vm, lane):
    result = vm.run("sleep", "1000", lane=lane, ksm="c", timeout=20)
    assert result.status == TIMED_OUT
    assert "timeout" in result.stderr


def test_left_over_background_process_does_not_matter(vm, lane):
    result = vm.run("sh", "-c", "sleep 1000 & echo done", lane=lane, ksm="c", timeout=120)
    assert result.status == 0, result.explain()
    assert result.stdout == b"done\n"


def test_nothing_is_left_when_the_tool_is_killed(vm, lane):
    started = vm.directory / "started"
    words = ["run", "--lane", lane, "--ksm", "c", "--share", vm.directory]
    command = "touch /mnt/share/started; sleep 1000"
    tool = subprocess.Popen([REPO / "tools/vm", *words, "--", "sh", "-c", command])
    try:
        wait_for(started.exists, 120)
    finally:
        children = children_of(tool.pid)
        tool.send_signal(signal.SIGKILL)
        tool.wait()
    assert children
    wait_for(lambda: not any(map(is_running, children)), 10)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
