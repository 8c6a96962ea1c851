# SPDX-License-Identifier: GPL-2.0
"""What the kernels are configured with; a build fails if it ends up with less."""

import dataclasses

import pytest

from harness import LANES
from ksmlab import config, flavour, kernel, setup
from ksmlab.say import Failure


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_ksm_is_built_in(lane, ksm):
    """Test suites of distributions look for this line, with any provider of KSM."""
    assert "CONFIG_KSM=y" in config.merged(lane, ksm).splitlines()


@pytest.mark.parametrize("lane", LANES)
def test_a_flavour_only_adds(lane):
    """A debug kernel has all that the ordinary one has, so it can run the same tests."""
    ordinary = set(config.merged(lane, "rs").splitlines())
    debug = set(config.merged(lane, "rs", flavour.DEBUG).splitlines())
    assert debug > ordinary
    assert "CONFIG_KASAN=y" in debug - ordinary


def test_what_cannot_be_built_is_said():
    with pytest.raises(Failure, match="the lane um has no kcsan kernel"):
        config.merged("um", "rs", flavour.KCSAN)


def test_an_option_that_kconfig_ignores_is_an_error(monkeypatch, tmp_path):
    tools = setup.tools()
    known = kernel.of("um", "rs", flavour.ORDINARY, tools)
    wanted = dataclasses.replace(known, options="CONFIG_MODULES=y\nCONFIG_NUMA=y\n")
    monkeypatch.setenv("KSM_RS_CACHE", str(tmp_path))
    wanted.build.mkdir()
    with pytest.raises(Failure, match="CONFIG_NUMA not in final .config"):
        kernel.configure(wanted, tools.environment())
