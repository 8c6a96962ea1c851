# SPDX-License-Identifier: GPL-2.0
"""ksmtuned switches KSM on when guests need more memory than there is, and off when they are gone."""

import subprocess
from pathlib import Path

from lab import answered, expect, get, given_up, output, put, version_of, wait_for

# On as soon as guests hold a fifth of the memory.
SETTINGS = """\
KSM_MONITOR_INTERVAL=2
KSM_SLEEP_MSEC=10
KSM_NPAGES_BOOST=300
KSM_NPAGES_DECAY=-50
KSM_NPAGES_MIN=64
KSM_NPAGES_MAX=1250
KSM_THRES_COEF=80
KSM_THRES_CONST=64
"""
GUEST = "qemu-system-x86_64 -S -accel tcg -nodefaults -display none -m 256 -mem-prealloc"
PAGES = 65536


def shared_pages(guest: subprocess.Popen) -> int:
    return given_up(guest.pid, PAGES)


def main() -> None:
    put(run=0, smart_scan=0)
    Path("/etc/ksmtuned.conf").write_text(SETTINGS)
    output("systemctl", "start", "ksmtuned")
    guests = [subprocess.Popen(GUEST.split()) for _ in range(2)]
    wait_for("ksmtuned switches KSM on", lambda: get("run") == 1)
    wait_for("ksmtuned raises the pace", lambda: get("pages_to_scan") > 300)
    # It may switch KSM off as soon as there is enough memory again.
    wait_for("guests share memory", lambda: sum(map(shared_pages, guests)) > PAGES // 2)
    pace, shared = get("pages_to_scan"), sum(map(shared_pages, guests))
    for guest in guests:
        guest.kill()
        guest.wait()
    wait_for("ksmtuned switches KSM off", lambda: get("run") == 0)
    output("systemctl", "stop", "ksmtuned")
    expect("nothing is shared once the guests are gone", get("pages_sharing") < 100)
    answered(
        "ksmtuned",
        version_of("ksmtuned"),
        "two guests of 256 MiB come and go",
        f"run 1, pages_to_scan {pace}, {shared} pages shared; then run {get('run')}",
    )


main()
