# SPDX-License-Identifier: GPL-2.0
"""Set-up, kernel builds and virtual machines of ksm_rs.

Needs nothing but Python's standard library, so that it runs before anything
has been installed.
"""
