# SPDX-License-Identifier: GPL-2.0
"""Prints what `ksm estimate` says of some processes, and what KSM then saves.

Arguments: the command ksm; the number of processes; their arguments (holder.py).
"""

import json
import sys

from loads import holders, merge, output, read


def main() -> None:
    command, count, *words = sys.argv[1:]
    with holders(int(count), words) as processes:
        pids = [str(process.pid) for process in processes]
        told = output(command, "--json", "estimate", "--advised", "--max-cpu", "100", *pids)
        merge()
        print(json.dumps({"estimate": json.loads(told), "saved": read("pages_sharing")}))


main()
