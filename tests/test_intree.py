# SPDX-License-Identifier: GPL-2.0
"""The module as a part of the kernel tree."""

import shutil
import subprocess

import pytest
from harness import REPO
from ksmlab import flavour, intree, kernel, setup
from ksmlab.say import Failure


@pytest.mark.timeout(1200)
def test_the_module_builds_in_the_kernel_tree(vm, tmp_path):
    inside = intree.kernel_with_module("um", setup.tools())
    kernel.ensure(inside)
    module = inside.build / "mm/ksm_rs/ksm_rs.ko"
    told = subprocess.run(["modinfo", module], capture_output=True, text=True, check=True).stdout
    assert "intree:         Y" in told
    shutil.copy(module, tmp_path / "ksm_rs.ko")
    script = "rmmod ksm_rs; insmod /mnt/share/ksm_rs.ko; ksm-case merge-mappings"
    done = vm.run("sh", "-ec", script, share=tmp_path, flavour=flavour.ORDINARY)
    assert done.status == 0, done.explain()


def test_the_module_is_written_again(tmp_path):
    for name in ("Kconfig", "Makefile"):
        file = tmp_path / "mm" / name
        file.parent.mkdir(exist_ok=True)
        shutil.copy(intree.kernel_with_module("um", setup.tools()).tree / "mm" / name, file)
    (tmp_path / intree.HOOKS).touch()
    old = tmp_path / intree.TARGET / "old.rs"
    for _ in range(2):
        intree.write(tmp_path)
        assert (tmp_path / intree.TARGET / "scan/batch.rs").exists() and not old.exists()
        old.touch()
    assert (tmp_path / "mm/Kconfig").read_text().count("config KSM_RS\n") == 1


def test_a_tree_without_the_series_is_refused(tmp_path):
    with pytest.raises(Failure, match="apply patches/ first"):
        intree.write(tmp_path)
    command = [REPO / "tools/intree", tmp_path]
    assert subprocess.run(command, capture_output=True).returncode == 1
