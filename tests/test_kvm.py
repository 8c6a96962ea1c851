# SPDX-License-Identifier: GPL-2.0
"""A host with guests: KVM runs inside the VM, on a processor that QEMU emulates."""

import json

import pytest

from harness import TIMEOUT, limit
from ksmlab import kvm_command, kvm_plan

# Of the pages that guests have more than once, the part that must be merged.
LEAST_PERCENT = 90


@pytest.mark.timeout(limit(TIMEOUT[kvm_plan.LANE]))
@pytest.mark.parametrize("ksm, words", [("c", []), ("rs", []), ("rs", ["--skip-untouched"])])
def test_guests_share_memory(vm, ksm, words, record_property):
    command = kvm_plan.guests("--guests", "4", "--victims", "1", "--json", *words)
    result = vm.run(*command, lane=kvm_plan.LANE, ksm=ksm, **kvm_plan.MACHINE)
    assert result.status == 0, result.explain()
    *lines, record = result.text.splitlines()
    assert lines[-1].endswith("bytes wrong: 0"), result.text
    assert json.loads(record)["percent"] >= LEAST_PERCENT, result.text
    record_property(" ".join(["KVM,", ksm, *words]), lines[-1])


@pytest.mark.kvm_full
@pytest.mark.timeout(limit(kvm_command.TIMEOUT["qemu"]))
@pytest.mark.parametrize("ksm", ["c", "rs"])
def test_linux_guests_of_qemu_share_memory(vm, ksm, record_property):
    timeout = kvm_command.TIMEOUT["qemu"]
    options = {"ksm": ksm, "timeout": timeout, **kvm_plan.QEMU_MACHINE}
    result = vm.run(*kvm_plan.qemu(), lane=kvm_plan.LANE, **options)
    # It sees to it itself that the pages of files are merged: most others are free memory.
    assert result.status == 0, result.explain()
    record_property(f"QEMU's guests, {ksm}", result.text.splitlines()[-1])


def record(seconds: float | None) -> dict:
    return {**dict.fromkeys(kvm_command.ROWS.values(), 100), "ksmd_seconds": seconds}


def test_table_has_medians_side_by_side():
    seconds = {"c": [4, 9, 6], "rs": [1, 3, 2]}
    table = kvm_command.table({ksm: list(map(record, values)) for ksm, values in seconds.items()})
    last = [cell.strip() for cell in table.splitlines()[-1].split("|")]
    assert last[1:-1] == ["seconds of ksmd until 95 %", "6.00", "2.00", "3.00"]


def test_what_was_never_reached_has_no_ratio():
    table = kvm_command.table({"c": [record(2)], "rs": [record(None), record(1)]})
    last = [cell.strip() for cell in table.splitlines()[-1].split("|")]
    assert last[2:-1] == ["2.00", "never", ""]


def test_either_ksm_is_first_in_turns():
    order = []
    kvm_command.in_turns(3, lambda ksm: order.append(ksm) or record(1))
    assert order == ["c", "rs", "rs", "c", "c", "rs"]
