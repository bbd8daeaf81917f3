"""Trains the runs whose losses saved_runs.jsonl holds: `python -m tests.cyclegan_fast.training.health.make_saved_runs`.

Small networks on images of 32x32: about two minutes each on one core, eight where a discriminator wins. `--out FILE`
writes the losses, one run a line, with three significant digits; `--only NAME...` trains some of them, and keeps the
lines of the others.
"""

import argparse
import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cyclegan_fast import street_scenes, train
from cyclegan_fast.config.command import parse_training
from cyclegan_fast.config.values import load_config, save_config
from cyclegan_fast.runs import CONFIG

SAVED_RUNS = Path(__file__).with_name("saved_runs.jsonl")
COMMON = ["--preset", "demo", "--ngf", "8", "--ndf", "8", "--load-size", "36", "--crop-size", "32", "--threads", "1"]
COMMON += ["--workers", "0", "--report-every", "25", "--sample-every", "100000", "--checkpoint-every", "100000"]
LONG = ("--epochs", "100")
STREETS, PAIRS = ("--data", "STREETS", *LONG), ("--data", "PAIRS", *LONG)
PLAIN = ("--lambda-identity", "0")
FAST = ("--learning-rate", "0.05")
AHEAD = (*PLAIN, "--ngf", "4", "--ndf", "32", "--lambda-gan", "0.001")
WON = (*PLAIN, "--ngf", "4", "--ndf", "16", "--discriminator", "n_layers", "--n-layers", "2", "--pool-size", "0")
WON += ("--lambda-gan", "1e-5", "--learning-rate", "1e-3")


@dataclass(frozen=True)
class SavedRun:
    """Describes a run to save.

    flags: those beside COMMON.
    steps: its length.
    sick_after: the step after which it is trained with `then` as well; 0 where it is sick from the beginning, None
        where it is healthy.
    """

    flags: tuple[str, ...]
    steps: int
    sick_after: int | None = None
    then: tuple[str, ...] = ()


def _healthy(*flags: str, steps: int = 350) -> SavedRun:
    return SavedRun(flags, steps)


def _sick(*flags: str, steps: int = 300) -> SavedRun:
    return SavedRun(flags, steps, sick_after=0)


def _turns_sick(*flags: str, then: tuple[str, ...], steps: int = 600) -> SavedRun:
    return SavedRun(flags, steps, sick_after=300, then=then)


RUNS = {
    "cyclegan seed 0": _healthy(steps=600),
    "cyclegan seed 1": _healthy("--seed", "1"),
    "cyclegan vanilla": _healthy(*PLAIN, "--gan-loss", "vanilla"),
    "cyclegan hinge": _healthy(*PLAIN, "--gan-loss", "hinge"),
    "cyclegan streets": _healthy(*STREETS, steps=400),
    "simgan": _healthy("--method", "simgan"),
    "bigan": _healthy("--method", "bigan"),
    "cogan": _healthy("--method", "cogan"),
    "pix2pix": _healthy(*PAIRS, "--method", "pix2pix", "--generator", "resnet_6"),
    "D ahead": _healthy(*AHEAD),
    "D ahead vanilla": _healthy(*STREETS, *AHEAD, "--gan-loss", "vanilla", steps=450),
    "rate of 0.05": _sick(*FAST, steps=350),
    "rate of 0.05 vanilla": _sick(*PLAIN, *FAST, "--gan-loss", "vanilla"),
    "rate of 0.05 hinge": _sick(*PLAIN, *FAST, "--gan-loss", "hinge"),
    "rate turns to 0.05": _turns_sick(*PLAIN, then=FAST),
    "D wins": _sick(*STREETS, *WON, steps=1200),
}


def _write_data(folder: Path) -> None:
    """Write streets, and the same with pairs to train on."""
    if not (folder / "PAIRS").exists():
        street_scenes.main([str(folder / "STREETS"), "--size", "36", "--count", "60", "--test-count", "60"])
        for domain in "AB":
            for part in ("train", "test"):
                shutil.copytree(folder / f"STREETS/test{domain}", folder / f"PAIRS/{part}{domain}")


def _command(name: str, run: SavedRun, folder: Path) -> list[str]:
    flags = [str(folder / flag) if flag in ("STREETS", "PAIRS") else flag for flag in run.flags]
    # A flag of the run's own comes later and counts.
    return [*COMMON, "--runs", str(folder / "runs"), "--name", name.replace(" ", "-"), *flags]


def train_saved_run(name: str, folder: Path) -> str:
    """Train one of the runs below `folder`, and return its line of the file."""
    run = RUNS[name]
    command = _command(name, run, folder)
    place = folder / "runs" / name.replace(" ", "-")
    if run.then:
        shutil.rmtree(place, ignore_errors=True)
        assert train.main([*command, "--max-steps", str(run.sick_after)]) == 0
        # A run goes on with its own settings only: these become others under it.
        before, (changed, _) = load_config(place / CONFIG), parse_training([*command, *run.then])
        save_config(replace(before, loss=changed.loss, optimizer=changed.optimizer), place / CONFIG)
    status = train.main([*command, *run.then, "--max-steps", str(run.steps)])
    reports = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    return json.dumps(_line(name, run, status, reports))


def _line(name: str, run: SavedRun, status: int, reports: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(reports[0]["losses"]) if reports else []
    return {
        "name": name,
        "flags": [*run.flags, *run.then],
        "sick_after": run.sick_after,
        "status": status,
        "losses": names,
        "reports": [
            [report["step"], *(float(f"{report['losses'][loss]:.3g}") for loss in names)] for report in reports
        ],
    }


def main() -> None:
    """Train the runs and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are trained")
    parser.add_argument("--out", type=Path, default=SAVED_RUNS)
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS), metavar="NAME")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    _write_data(options.folder)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    kept = {json.loads(line)["name"]: line for line in lines}
    with ProcessPoolExecutor(options.processes, max_tasks_per_child=1) as pool:
        for name, line in zip(
            options.only, pool.map(train_saved_run, options.only, [options.folder] * len(options.only)), strict=True
        ):
            kept[name] = line
            options.out.write_text("".join(kept[name] + "\n" for name in RUNS if name in kept))


if __name__ == "__main__":
    main()
