# SPDX-License-Identifier: GPL-2.0
"""What the command `ksm` says in a VM of processes that a script there starts."""

import json

from harness import REPO, Vm
from ksmlab import programs

COMMAND = programs.directory() / "ksm"


def told(vm: Vm, script: str, *load: int, **options) -> dict:
    """What a script of tests/guest/ prints; the load is the number of processes, and what each holds."""
    words = ["/usr/bin/python3", f"/mnt/share/{script}", COMMAND, *load]
    done = vm.run(*map(str, words), share=REPO / "tests/guest", **options)
    assert done.status == 0, done.explain()
    return json.loads(done.text)
