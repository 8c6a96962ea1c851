# SPDX-License-Identifier: GPL-2.0
"""Prometheus' node exporter serves KSM's counters over HTTP."""

import re
import subprocess

from lab import answered, at_full_speed, equal, expect, get, output, put, scans, version_of, wait_for

PORT = 9100
COMMAND = ("prometheus-node-exporter", "--collector.ksmd", f"--web.listen-address=127.0.0.1:{PORT}")


def scraped() -> dict[str, float]:
    page = output("curl", "--silent", "--show-error", f"http://127.0.0.1:{PORT}/metrics")
    return {name: float(value) for name, value in re.findall(r"^node_ksmd_(\w+) (\S+)$", page, re.M)}


def listens() -> bool:
    probe = ["curl", "--silent", "--output", "/dev/null", f"http://127.0.0.1:{PORT}/"]
    return subprocess.run(probe).returncode == 0


def main() -> None:
    at_full_speed()
    with equal() as _, subprocess.Popen(COMMAND, stderr=subprocess.DEVNULL) as exporter:
        wait_for("the exporter listens", listens)
        scans(3)
        put(run=0)
        found = scraped()
        exporter.kill()
        for name in ("pages_shared", "pages_sharing", "pages_unshared", "run", "pages_to_scan"):
            expect(f"node_ksmd_{name} is the kernel's", found.get(name) == get(name), found)
    expect("much is shared", found["pages_sharing"] > 2000, found)
    answered(
        "node exporter",
        version_of("prometheus-node-exporter"),
        "GET /metrics",
        ", ".join(f"node_ksmd_{name} {value:g}" for name, value in sorted(found.items())),
    )


main()
