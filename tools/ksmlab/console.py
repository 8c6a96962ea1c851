# SPDX-License-Identifier: GPL-2.0
"""What a kernel log says about the kernel's health."""

import re

# Each is something that must never appear while a test runs.
TROUBLE = re.compile(
    # What ends a kernel, or might.
    r"Kernel panic|Oops|BUG: |kernel BUG at|Unable to handle|general protection fault"
    r"|rust_kernel: panicked|WARNING: |Call Trace:|Out of memory: Killed"
    # Waiting for too long.
    r"|INFO: rcu|rcu_\w+ self-detected stall|soft lockup|INFO: task .* blocked"
    # Lockdep, and what makes it switch itself off.
    r"|INFO: possible|possible .* detected|inconsistent lock state|suspicious RCU usage"
    r"|DEBUG_LOCKS_WARN_ON|INFO: trying to register non-static key"
    r"|turning off the locking correctness validator|INFO: lockdep is turned off"
    # Memory.  A page that delays a block's going offline, or prevents it, is dumped.
    r"|KASAN: |KCSAN: |UBSAN: |KFENCE: |Bad page state|Bad rss-counter"
    r"|page dumped because: (?!unmovable page|isolation failed|migration failure)"
    r"|pagealloc: (?:memory corruption|single bit error)|list_(?:add|del) (?:corruption|double add)"
    r"|BUG \S+ \(|kmemleak: \d+ new suspected|unreferenced object"
)

# Bits of /proc/sys/kernel/tainted that stand for damage; others say which
# modules are loaded, and that tests have run.
TAINTS = {4: "machine check", 5: "bad page", 7: "oops", 9: "warning", 14: "soft lockup"}


def trouble(log: str) -> str | None:
    """The first line of `log` that reports a fault of the kernel."""
    for line in log.splitlines():
        if TROUBLE.search(line):
            return line.strip()
    return None


def taint(flags: int) -> str | None:
    """What the kernel's taint flags say has happened to it, if anything."""
    found = [name for bit, name in TAINTS.items() if flags >> bit & 1]
    return ", ".join(found) or None


def tail(log: str, lines: int = 30) -> str:
    return "\n".join(log.splitlines()[-lines:])
