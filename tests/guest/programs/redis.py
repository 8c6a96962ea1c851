# SPDX-License-Identifier: GPL-2.0
"""Redis, all of its memory mergeable, rewrites its log in a fork and starts from it again."""

import shutil
import subprocess
from pathlib import Path

from lab import (
    answered, estimate_and_saved, expect, expect_estimate, merging, output, put, under_merge_any,
    version_of, wait_for,
)  # fmt: skip

DIRECTORY = Path("/var/tmp/redis")
SOCKET = DIRECTORY / "socket"
SERVER = (
    *("redis-server", "--port", "0", "--unixsocket", SOCKET, "--dir", DIRECTORY, "--save", ""),
    *("--appendonly", "yes", "--enable-debug-command", "local", "--logfile", DIRECTORY / "log"),
)
# As different keys hold the same, much of it merges.
FILL = """
for i = 1, 40000 do
    redis.call('SET', 'key:' .. i, string.rep('value ' .. i % 16, 512))
end
"""


def cli(*words: str) -> str:
    return output("redis-cli", "-s", SOCKET, *words).strip()


def start() -> subprocess.Popen:
    server = subprocess.Popen(under_merge_any(*SERVER))
    ping = ["redis-cli", "-s", str(SOCKET), "PING"]
    wait_for(
        "the server answers",
        lambda: "PONG" in subprocess.run(ping, capture_output=True, text=True).stdout,
    )
    return server


def field(name: str) -> str:
    lines = cli("INFO", "persistence").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(f"{name}:"))


def rewrite() -> None:
    cli("BGREWRITEAOF")
    wait_for("the log is rewritten", lambda: field("aof_rewrite_in_progress") == "0")
    expect("the rewrite succeeded", field("aof_last_bgrewrite_status") == "ok")


def main() -> None:
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir()
    put(run=0)
    server = start()
    cli("EVAL", FILL, "0")
    estimate = expect_estimate(*estimate_and_saved(server.pid))
    expect("its memory has merged", merging(server.pid) > 1000, merging(server.pid))
    rewrite()
    output("redis-benchmark", "-s", SOCKET, "-n", "20000", "-r", "10000", "-t", "set,lpush,incr", "-q")
    rewrite()
    before, merged = cli("DEBUG", "DIGEST"), merging(server.pid)
    cli("SHUTDOWN")
    server.wait()
    server = start()
    expect("it reads back all that it wrote", cli("DEBUG", "DIGEST") == before)
    cli("SHUTDOWN")
    server.wait()
    put(run=0)
    answered(
        "redis",
        version_of("redis-server"),
        "40,000 keys, BGREWRITEAOF, redis-benchmark, BGREWRITEAOF, start anew",
        f"{estimate}; {merged} pages merged; digest {before[:12]} before and after",
    )


main()
