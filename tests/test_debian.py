# SPDX-License-Identifier: GPL-2.0
"""The lane `debian`: real programs, and this project's own, on Debian's kernel and system.

`make test-debian` runs it: building Debian's kernel takes longer than all of `make test`.
"""

import json

import pytest

import test_cases
from harness import limit
from ksmlab.paths import REPO

pytestmark = pytest.mark.debian

LANE = "debian"
SCRIPTS = REPO / "tests/guest/programs"

# What the scripts use, or start.
PARTS = {"lab", "equal", "merge_any"}
PROGRAMS = sorted({script.stem for script in SCRIPTS.glob("*.py")} - PARTS)

# About what Debian's own kernel does not have.
OURS = {"administration", "libvirt_domains", "tenants"}

# Seconds; the machine boots in one to two minutes.
TIMEOUT = 1800

# Cases that run one after the other in one boot.
BATCH = 16

# The package has switched KSM on; cases want to find the module as it is when it is loaded, and swap to zram.
FRESH = (
    'modprobe zram; echo 2 > /sys/kernel/mm/ksm/run; rmmod ksm_rs; insmod "$KSM_RS_KO"; exec "$@"'
)


# What the kernel says if a CPU that QEMU emulates runs an instruction that another one has just patched
# away: a mistake of QEMU, seen while the host was busy.
PATCHED_AWAY = "Oops: int3"
BOOTS = 3


def in_debian(vm, *command: str, ksm: str = "rs", **options):
    for _ in range(BOOTS):
        result = vm.run(*command, lane=LANE, ksm=ksm, timeout=TIMEOUT, **options)
        if result.status == 0 or PATCHED_AWAY not in result.explain():
            break
    return result


@pytest.mark.timeout(limit(TIMEOUT))
@pytest.mark.parametrize(
    "name, ksm",
    [(name, ksm) for name in PROGRAMS for ksm in ("rs", "c") if ksm == "rs" or name not in OURS],
)
def test_program(vm, name, ksm, record_property):
    result = in_debian(vm, "python3", str(SCRIPTS / f"{name}.py"), ksm=ksm)
    assert result.status == 0, result.explain()
    *lines, row = result.text.splitlines()
    record_property(f"Debian, {ksm}", " | ".join(json.loads(row)))
    print(*lines, sep="\n")


# Debian's kernel cannot test its suspend (PM_DEBUG; hibernation.py freezes everything as well), nor hold a lock
# for long (TEST_LOCKUP).
TAKES_A_DEBUG_OPTION = {"freeze", "ended-locked"}


# Once zswap has been on, the kernel reads no large folios from swap until it boots again.
LAST = "swap-zswap"


def cases() -> list[str]:
    """Those of the lane x86 that need nothing special of the machine."""
    found = [
        case.name
        for case in test_cases.all_cases()
        if case.name not in TAKES_A_DEBUG_OPTION
        and "rs" in case.modes
        and any(lane.name == "x86" and not lane.options for lane in case.lanes)
    ]
    return sorted(found, key=LAST.__eq__)


@pytest.mark.timeout(limit(TIMEOUT))
@pytest.mark.parametrize("first", range(0, len(cases()), BATCH))
def test_cases_on_debian(vm, first, seed, tmp_path, record_property):
    names = cases()[first : first + BATCH]
    share = tmp_path / "cases"
    share.mkdir()
    run = (str(REPO / "tests/run-cases"), "/mnt/share", str(TIMEOUT // 2), seed, *names)
    result = in_debian(vm, "sh", "-c", FRESH, "sh", *run, share=share)
    statuses = {name: test_cases.Run(result, share).status(name) for name in names}
    failed = [name for name, status in statuses.items() if status != 0]
    texts = [f"{name}: {test_cases.Run(result, share).text(name)}" for name in failed]
    assert (result.status, failed) == (0, []), "\n".join([*texts, result.explain()])
    record_property(f"cases on Debian, from {names[0]}", f"{len(names)} passed")


OWN_PROGRAMS = {
    "property": ("ksm-property", "--seconds", "120"),
    "races": ("ksm-races", "--seconds", "8"),
}


@pytest.mark.timeout(limit(TIMEOUT))
@pytest.mark.parametrize("name", OWN_PROGRAMS)
def test_own_programs_on_debian(vm, name, seed, record_property):
    command = (*OWN_PROGRAMS[name], "--seed", seed)
    result = in_debian(vm, "sh", "-c", FRESH, "sh", *command)
    assert result.status == 0, result.explain()
    record_property(f"{name} on Debian", result.text.splitlines()[-1])


@pytest.mark.timeout(limit(2 * TIMEOUT))
def test_same_outcomes_as_debians_kernel(vm, record_property):
    fresh = {"c": "echo 0 > /sys/kernel/mm/ksm/run; exec \"$@\"", "rs": FRESH}
    c, rs = (
        in_debian(vm, "sh", "-c", fresh[ksm], "sh", "ksm-outcomes", ksm=ksm) for ksm in ("c", "rs")
    )
    for result in (c, rs):
        assert result.status == 0, result.explain()
    assert c.text == rs.text
    record_property("outcomes on Debian", f"{len(c.text.splitlines())} alike")
