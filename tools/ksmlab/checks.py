# SPDX-License-Identifier: GPL-2.0
"""What kmemleak and lockdep have to say at the end of a run."""

import re
from collections.abc import Callable

# Options of a kernel that has them.
KMEMLEAK = "CONFIG_DEBUG_KMEMLEAK=y"
LOCKDEP = "CONFIG_PROVE_LOCKING=y"

# What guest/init wrote under a name, if it did.
Report = Callable[[str], str | None]


def leaks(report: Report) -> str | None:
    """Memory that nothing points to, now that the module is unloaded."""
    found = report("leaks")
    if not found:
        return None
    count = found.count("unreferenced object")
    return f"kmemleak found {count} objects:\n{with_offsets(found, report('module'))}"


def with_offsets(text: str, module: str | None) -> str:
    """Name addresses that lay in the module; `module` was its line in /proc/modules."""
    if not module:
        return text
    name, size, _, _, _, address, *_ = module.split()
    start = int(address, 16)

    def offset(found: re.Match) -> str:
        inside = int(found[0], 16) - start
        return f"{name}+{inside:#x}" if 0 <= inside < int(size) else found[0]

    return re.sub(r"0x[0-9a-f]{8,16}", offset, text)


def silent(report: Report, options: list[str]) -> str | None:
    """Whose silence means nothing: both switch themselves off when they are in trouble."""
    if KMEMLEAK in options and report("leaks") is None:
        return "kmemleak has switched itself off"
    if LOCKDEP in options and (report("lockdep") or "").split() != ["debug_locks:", "1"]:
        return "lockdep has switched itself off"
    return None
