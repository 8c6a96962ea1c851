# SPDX-License-Identifier: GPL-2.0
"""Fixtures, and the last line that a run of the tests prints."""

import fcntl

import pytest

import seeds
from harness import TIMEOUT, Vm, limit
from ksmlab import flavour
from ksmlab.paths import in_cache

# What only a debug kernel can show.
collect_ignore = [] if flavour.usual() == flavour.DEBUG else ["test_debug.py"]


def pytest_configure():
    """Before there are any workers, which inherit the seed."""
    try:
        seeds.choose()
    except ValueError as error:
        raise pytest.UsageError(error) from None


def pytest_report_header():
    return f"seed: {seeds.again()}"


@pytest.fixture
def seed():
    """Shown with a failure."""
    print(f"seed {seeds.again()}")
    return str(seeds.chosen())


@pytest.fixture
def vm(tmp_path):
    return Vm(tmp_path)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Tests share the machine, but for those that measure.

    A test waits here, before its time limit begins to count.
    """
    alone = item.get_closest_marker("alone")
    with open(in_cache("locks", "tests"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


def limit_by_lane(item) -> float:
    """The time limit of a test that boots one VM, or none."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return limit(TIMEOUT[parameters.get("lane", "um")])


def pytest_collection_modifyitems(items):
    """Each test has a time limit.  Measuring comes last: it must wait until no other test runs."""
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(limit_by_lane(item)))
    items.sort(key=lambda item: item.get_closest_marker("alone") is not None)


def pytest_terminal_summary(terminalreporter):
    """Show what tests have measured, and where their random numbers came from."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, value in report.user_properties:
                terminalreporter.write_line(f"{name}: {value}")
    terminalreporter.write_line(f"seed: {seeds.again()}")


def summary(reporter) -> str:
    counts = {
        name: len(reporter.stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")
    }
    line = f"{counts['passed']} passed, {counts['failed'] + counts['error']} failed"
    return line + (f", {counts['skipped']} skipped" if counts["skipped"] else "")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Print the line by which other programs know how the tests went."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter and not hasattr(config, "workerinput"):
        reporter.write_line(summary(reporter))
