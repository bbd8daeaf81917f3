"""Carries out campaigns of faults: `python -m tests.faults --help`."""

import argparse
import importlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.harness import Campaign, Tally

NAMES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if not path.stem.startswith(("_", "test_", "harness", "conftest"))
)
"""The files of this folder that have a `CAMPAIGN`."""


def campaign_named(name: str) -> Campaign:
    """Return the campaign of a module, which is imported at its turn: some set environment variables first."""
    campaign: Campaign = importlib.import_module(f"tests.faults.{name}").CAMPAIGN
    return campaign


def main() -> int:
    # A forked process must find no thread of OpenMP started, and tiny tensors need none.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Make faults at random, and say what came of them."
    )
    parser.add_argument("campaigns", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument("--count", type=int, help="faults of each campaign, in place of its full count")
    parser.add_argument("--few", action="store_true", help="make as many as the slow tests do")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="folder for what they make; by default a new one, removed at the end")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.campaigns if name not in NAMES]:
        parser.error(f"no campaign is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        work = (chosen.work or Path(temporary)).resolve()
        for name in chosen.campaigns or NAMES:
            campaign = campaign_named(name)
            count = chosen.count or (campaign.few if chosen.few else campaign.full)
            tally = Tally(name)
            folder = work / name
            folder.mkdir(parents=True)
            began = time.monotonic()
            campaign.make(tally, folder, count, random.Random(f"{name} {chosen.seed}"))
            print(f"{tally.summary()}; seed {chosen.seed}, {time.monotonic() - began:.0f} s", flush=True)
            failed += len(tally.failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
