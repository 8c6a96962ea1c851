# SPDX-License-Identifier: GPL-2.0
"""Runs a program all of whose memory, and its children's, is mergeable."""

import ctypes
import os
import sys

PR_SET_MEMORY_MERGE = 67

if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0):
    raise OSError(ctypes.get_errno(), "PR_SET_MEMORY_MERGE")
os.execvp(sys.argv[1], sys.argv[1:])
