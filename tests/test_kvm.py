# SPDX-License-Identifier: GPL-2.0
"""A host with guests: KVM runs inside the VM, on a processor that QEMU emulates."""

import json

import pytest

from harness import TIMEOUT, limit
from ksmlab import kvm_command, kvm_plan
from ksmlab.kvm_command import RUST, C

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


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def record(seconds: float | None) -> dict:
    return {**dict.fromkeys(kvm_command.ROWS.values(), 100), "ksmd_seconds": seconds}


def test_table_has_medians_side_by_side():
    seconds = {C: [4, 9, 6], RUST: [1, 3, 2]}
    table = kvm_command.table({side: list(map(record, values)) for side, values in seconds.items()})
    assert ["seconds of ksmd until 95 %", "6.00", "2.00", "3.00"] in cells(table)


def test_what_was_never_reached_has_no_ratio():
    table = kvm_command.table({C: [record(2)], RUST: [record(None), record(1)]})
    assert ["seconds of ksmd until 95 %", "2.00", "never", ""] in cells(table)


def test_what_was_not_measured_has_no_row():
    unmeasured = {name: value for name, value in record(1).items() if name != "guest_millisecs"}
    tables = [kvm_command.table({C: [one], RUST: [one]}) for one in (record(1), unmeasured)]
    whole, without = map(cells, tables)
    assert len(without) == len(whole) - 1


def test_either_ksm_is_first_in_turns():
    order = []
    kvm_command.in_turns((C, RUST), 3, lambda side: order.append(side) or record(1))
    assert order == [C, RUST, RUST, C, C, RUST]


def sides_of(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["tools/bench-kvm", *words])
    return kvm_command.compared(kvm_command.parse())


def test_what_is_set_is_compared_with_the_default(monkeypatch):
    assert sides_of(monkeypatch) == (C, RUST)
    first, second = sides_of(monkeypatch, "--set", "skip_untouched=1", "--parameters", "in_sync=1")
    assert first == RUST
    assert second == kvm_command.Side(
        "skip_untouched=1 in_sync=1", "rs", ("skip_untouched=1",), "in_sync=1"
    )
