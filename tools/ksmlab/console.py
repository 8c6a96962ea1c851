# SPDX-License-Identifier: GPL-2.0
"""What a kernel log says about the kernel's health."""

import re

# Each is something that must never appear while a test runs.
TROUBLE = re.compile(
    r"Kernel panic|Oops|BUG: |WARNING: |INFO: possible|INFO: rcu|INFO: task .* blocked"
    r"|possible .* detected|inconsistent lock state|suspicious RCU usage"
    r"|KASAN: |UBSAN: |KFENCE: |Unable to handle|general protection fault"
    r"|Call Trace:|rcu_\w+ self-detected stall|soft lockup|Bad page state"
    r"|Bad rss-counter|Out of memory: Killed"
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
