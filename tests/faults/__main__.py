"""Carries out campaigns of faults: `python -m tests.faults --help`."""

import argparse
import os
import random
import sys
import tempfile
import time
from pathlib import Path

# A forked process must find no thread of OpenMP started, and tiny tensors need none.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

from tests.faults.harness import Campaign, Tally

CAMPAIGNS: tuple[Campaign, ...] = ()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Make faults at random, and say what came of them."
    )
    parser.add_argument(
        "campaigns", nargs="*", metavar="NAME", help=f"of {', '.join(c.name for c in CAMPAIGNS)}; all by default"
    )
    parser.add_argument("--count", type=int, help="faults of each campaign, in place of its full count")
    parser.add_argument("--few", action="store_true", help="make as many as CI does")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, help="folder for what the campaigns make; by default a new one, removed at the end"
    )
    chosen = parser.parse_args()
    known = {campaign.name: campaign for campaign in CAMPAIGNS}
    if unknown := [name for name in chosen.campaigns if name not in known]:
        parser.error(f"no campaign is called {', '.join(unknown)}; there are {', '.join(known)}")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        work = (chosen.work or Path(temporary)).resolve()
        for campaign in [known[name] for name in chosen.campaigns] or CAMPAIGNS:
            count = chosen.count or (campaign.few if chosen.few else campaign.full)
            tally = Tally(campaign.name)
            folder = work / campaign.name
            folder.mkdir(parents=True)
            began = time.monotonic()
            campaign.make(tally, folder, count, random.Random(f"{campaign.name} {chosen.seed}"))
            print(f"{tally.summary()}; seed {chosen.seed}, {time.monotonic() - began:.0f} s", flush=True)
            failed += len(tally.failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
