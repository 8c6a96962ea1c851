# SPDX-License-Identifier: GPL-2.0
"""What an administrator sees of the packages once the system has booted."""

import os

from lab import answered, expect, output

PACKAGES = "ksm-rs", f"linux-image-{os.uname().release}"


def main() -> None:
    print(output("dpkg-query", "--list", *PACKAGES))
    print(output("systemctl", "--no-pager", "status", "ksm-rs"))
    warnings = output("journalctl", "--boot", "--priority=warning", "--no-pager", "--output=cat")
    print(warnings)
    ours = [line for line in warnings.splitlines() if "ksm" in line.lower()]
    expect("there is no warning of ours", not ours, ours)
    state = output("systemctl", "show", "--value", "--property=ActiveState", "ksm-rs").strip()
    expect("the service has done its work", state == "active", state)
    failed = output("systemctl", "--failed", "--no-legend", "--plain")
    expect("no service has failed", not failed.strip(), failed)
    answered("systemd, dpkg", os.uname().release, "systemctl status ksm-rs", state)


main()
