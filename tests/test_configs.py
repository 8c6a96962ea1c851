# SPDX-License-Identifier: GPL-2.0
"""What the kernels are configured with; a build fails if it ends up with less."""

import pytest

from harness import LANES
from ksmlab import config, flavour
from ksmlab.say import Failure


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_ksm_is_built_in(lane, ksm):
    """Test suites of distributions look for this line, whoever provides KSM."""
    assert "CONFIG_KSM=y" in config.merged(lane, ksm).splitlines()


@pytest.mark.parametrize("lane", LANES)
def test_a_flavour_only_adds(lane):
    """A debug kernel has all that the ordinary one has, so it can run the same tests."""
    ordinary = config.options(config.merged(lane, "rs"))
    debug = config.options(config.merged(lane, "rs", flavour.DEBUG))
    assert debug.items() > ordinary.items()
    assert "CONFIG_KASAN" not in ordinary


def test_what_cannot_be_built_is_said():
    with pytest.raises(Failure, match="the lane um has no kcsan kernel"):
        config.merged("um", "rs", flavour.KCSAN)
