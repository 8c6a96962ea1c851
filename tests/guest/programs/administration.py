# SPDX-License-Identifier: GPL-2.0
"""What docs/install.md has an administrator do: tune, stop, take memory back, remove, purge."""

import os
from pathlib import Path

from lab import answered, equal, expect, get, merging, output, wait_for

SETTINGS = Path("/etc/ksm-rs.conf")
PACKAGES = "ksm-rs", "linux-*-ksm-rs-*"
PIECES = Path("/boot", f"vmlinuz-{os.uname().release}"), Path("/lib/modules", os.uname().release)


def set_in_file(**values: int) -> None:
    lines = "".join(f"{name} = {value}\n" for name, value in values.items())
    SETTINGS.write_text(SETTINGS.read_text() + lines)
    output("systemctl", "reload", "ksm-rs")


def apt(*words: str) -> None:
    output("apt-get", "--yes", *words, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def main() -> None:
    set_in_file(smart_scan=0, pages_to_scan=4321, sleep_millisecs=1)
    expect("reload sets the pace", get("pages_to_scan") == 4321)
    with equal() as processes:
        pids = [process.pid for process in processes]
        wait_for("the processes share", lambda: min(map(merging, pids)) > 2000)
        output("systemctl", "stop", "ksm-rs")
        kept = get("pages_sharing")
        expect("stop keeps what is merged", get("run") == 0 and kept > 2000, kept)
        output("systemctl", "start", "ksm-rs")
        expect("start merges again", get("run") == 1)
        output("ksm", "set", "run=2")
        left = get("pages_shared"), get("pages_sharing")
        expect("run=2 takes everything back", left == (0, 0), left)
    apt("remove", *PACKAGES)
    expect("the kernel is gone", not any(piece.exists() for piece in PIECES))
    expect("the settings stay", SETTINGS.exists() and not Path("/usr/bin/ksm").exists())
    apt("purge", *PACKAGES)
    expect("purge takes the settings", not SETTINGS.exists())
    answered(
        "apt, systemctl, ksm",
        os.uname().release,
        "reload with another pace, stop, start, `ksm set run=2`, remove, purge",
        f"{kept} pages saved when stopped, 0 after run=2; nothing of the packages is left",
    )


main()
