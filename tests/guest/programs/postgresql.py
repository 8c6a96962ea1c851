# SPDX-License-Identifier: GPL-2.0
"""PostgreSQL, all of its memory mergeable, under pgbench: its books balance, its pages are whole."""

import shutil
import subprocess
from pathlib import Path

from lab import answered, at_full_speed, expect, get, output, put, under_merge_any, version_of

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"))
DIRECTORY = Path("/var/tmp/postgresql")
SECONDS = 60
BALANCE = """
SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
   AND (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(delta) FROM pgbench_history)
   AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(delta) FROM pgbench_history)
"""


def as_postgres(*command: str | Path) -> list[str]:
    return ["runuser", "-u", "postgres", "--", *map(str, command)]


def client(program: str, *words: str) -> str:
    command = as_postgres(program, "--host", DIRECTORY, "--username", "postgres", *words)
    return output(*command, stderr=subprocess.STDOUT)


def server(action: str) -> None:
    control = (BIN / "pg_ctl", "--pgdata", DIRECTORY / "data", "--wait", "--silent", action)
    options = f"-c listen_addresses='' -c unix_socket_directories={DIRECTORY}"
    start = ("--log", DIRECTORY / "log", "--options", options) if action == "start" else ()
    output(*as_postgres(*under_merge_any(*control, *start)))


def main() -> None:
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir()
    shutil.chown(DIRECTORY, "postgres")
    at_full_speed()
    make = (BIN / "initdb", "--pgdata", DIRECTORY / "data", "--data-checksums")
    output(*as_postgres(*under_merge_any(*make)))
    server("start")
    client("pgbench", "--initialize", "--scale", "3", "--quiet", "postgres")
    told = client("pgbench", "--client", "4", "--jobs", "2", "--time", str(SECONDS), "postgres")
    expect("no transaction failed", "failed transactions: 0" in told, told)
    shared = get("pages_sharing")
    expect("its memory merged", shared > 100, shared)
    balanced = client("psql", "--tuples-only", "--no-align", "--command", BALANCE, "postgres")
    expect("its books balance", balanced.strip() == "t", balanced)
    server("stop")
    checked = output(*as_postgres(BIN / "pg_checksums", "--pgdata", DIRECTORY / "data", "--check"))
    expect("no checksum is wrong", "Bad checksums:  0" in checked, checked)
    put(run=0)
    count = next(line for line in told.splitlines() if "actually processed" in line)
    answered(
        "postgresql",
        version_of("postgresql"),
        f"pgbench with 4 clients for {SECONDS} s, sums, pg_checksums",
        f"{count.split(': ')[1]} transactions, sums equal, no bad checksum; {shared} pages shared",
    )


main()
