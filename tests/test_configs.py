# SPDX-License-Identifier: GPL-2.0
"""What the kernels are configured with; a build fails if it ends up with less."""

import pytest

from harness import LANES
from ksmlab import config


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_ksm_is_built_in(lane, ksm):
    """Test suites of distributions look for this line, whoever provides KSM."""
    assert "CONFIG_KSM=y" in config.merged(lane, ksm).splitlines()
