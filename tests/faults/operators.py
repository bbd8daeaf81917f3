"""Calls the fused operators at random in Triton's interpreter, one call in two with an argument that does not fit.

Each call goes to every implementation that there is. All of them must refuse it in the same words, which name the
argument; or all must compute it, as right against float64 as plain PyTorch is.
"""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.faults.harness import Campaign, Tally

CALLS_A_PROCESS = 250
LONGEST_S = 1200


def _make(tally: Tally, work: Path, count: int, source: random.Random) -> None:
    """Let other processes make the calls: one that crashes ends alone, and Triton's interpreter is chosen at import."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    environment.pop("CYCLEGAN_FAST_IMPL", None)
    for first in range(0, count, CALLS_A_PROCESS):
        seed, number = source.randrange(2**32), min(CALLS_A_PROCESS, count - first)
        command = [sys.executable, "-W", "ignore", "-m", "tests.faults._operator_calls", str(seed), str(number)]
        with open(work / "said", "w+", encoding="utf-8") as said:
            status = subprocess.run(command, env=environment, stdout=said, timeout=LONGEST_S).returncode
            said.seek(0)
            rows = [json.loads(line) for line in said]
        for row in rows:
            if "came_of_it" in row:
                tally.add(row["call"], row["came_of_it"], failed=row["failed"])
        if status:
            last = rows[-1]["call"] if rows else "no call"
            tally.add(last, f"the process ended by {status}", failed=True)


CAMPAIGN = Campaign(_make, full=2000, few=100)
