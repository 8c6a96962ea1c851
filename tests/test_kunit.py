# SPDX-License-Identifier: GPL-2.0
"""The module's KUnit suites, which run when it is loaded."""

import pytest

import kunit
from harness import Vm

pytestmark = pytest.mark.xdist_group("kunit")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    directory = tmp_path_factory.mktemp("kunit")
    boot = Vm(directory).run("true", append="kunit.enable=1 kunit.autorun=1")
    assert boot.status == 0, boot.explain()
    return kunit.results(boot.log, directory), boot.log


@pytest.mark.parametrize(("suite", "name"), kunit.in_sources())
def test_kunit(outcome, suite, name):
    results, log = outcome
    assert results.get((suite, name), "did not run") == "PASS", kunit.failure(log, name)
