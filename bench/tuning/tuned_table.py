"""Tunes key after key and writes what pays into a table of `kernels/tuned`; prints the same as Markdown.

`bench.tuning.tuner` tries the plans of a key; `bench.tune` and `bench.gpu` are the commands.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.measure import limits
from bench.reporting.markdown import markdown_table
from bench.tuning import tuner
from bench.tuning.candidates import plan_text
from bench.tuning.trials import tasks
from bench.tuning.tuner import BUILT_IN, EVERYTHING, PAYS, Tell, Tuned, Tuner, Visit
from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.checking.sites import NormSite
from cyclegan_fast.system.files import write_atomically


def tuning(
    device: torch.device,
    sites: Sequence[NormSite],
    dtypes: Sequence[torch.dtype],
    batches: Sequence[Sequence[int]],
    until_s: float,
    out: Path,
    tell: Tell,
    *,
    visits: Sequence[Visit] = (EVERYTHING,),
    key_s: float = math.inf,
) -> Iterator[Tuned]:
    """Tune key after key, the most important first; each is in the file when it is yielded.

    Args:
        device: The GPU, or the CPU in Triton's interpreter.
        sites: Sites from `kernels.checking.sites`.
        dtypes: The precisions that plans are made for.
        batches: The batches that plans are made for, in groups, of which the first one comes first.
        until_s: The end by `time.monotonic()`; no key begins after it, and no further candidate of a key is tried.
        out: The folder of the table. Plans that the file has for other keys are kept, as are those of keys that time
            did not suffice for. Where it is `launch.TUNED`, this process runs by what was written.
        tell: Is given a line for each key, and one for each candidate that was left out.
        visits: Say how often keys are gone through, and how many candidates are tried each time.
        key_s: Seconds after which no further candidate of a key is tried, so that others have their turn.

    Raises:
        ValueError: The file is no table.
        UserError: The file cannot be written.
        DeviceLost: An error left the GPU unusable.
    """
    trying = Tuner(device, until_s, tell)
    path = launch.tuned_path(trying.gpu.name, out)
    entries = launch.read_tuned(path)
    for visit in visits:
        for task in tasks(sites, dtypes, batches):
            if tuner.now() >= until_s:
                tell("time is up: keys that remain keep the plans that they have")
                return
            trying.until_s = min(until_s, tuner.now() + key_s)
            tuned = trying.tuned(task, entries, visit)
            if tuned is not None:
                _update(entries, tuned)
                _write(path, entries)
                tell(_line(tuned))
                yield tuned


def _update(entries: dict[str, dict[str, Any]], tuned: Tuned) -> None:
    """Enter a plan where it pays: a norm without one runs by rule; a convolution's says whether it is used at all."""
    if tuned.best is not None and tuned.is_convolution:
        entries[tuned.key] = dataclasses.asdict(tuned.best) | {"beats_library": tuned.won}
    elif tuned.best is not None and tuned.won:
        entries[tuned.key] = dataclasses.asdict(tuned.best)
    elif tuned.complete:
        entries.pop(tuned.key, None)


def _write(path: Path, entries: Mapping[str, Any]) -> None:
    """Write a line for each key, so that a difference between versions can be read."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{{\n{lines}\n}}\n".encode())
    launch.forget_tuned()


def _line(tuned: Tuned) -> str:
    """Return the line of one key for a terminal."""
    text = f"{tuned.key}: {'library' if tuned.is_convolution else BUILT_IN} {tuned.built_in_us:.2f} us"
    if tuned.best is None or tuned.ratio is None:
        return f"{text}; no other plan is correct"
    verdict = "taken" if tuned.won else f"less than {PAYS - 1:.0%} better, not taken"
    return f"{text}; {tuned.best_us:.2f} us, {tuned.ratio.median:.3f}x by {plan_text(tuned.best)}: {verdict}"


def tuned_markdown(found: Sequence[Tuned], known: limits.Limits | None = None) -> str:
    """Return a Markdown table. Its floor is by `known`: bytes over copy bandwidth or operations over throughput."""
    rows: list[list[str]] = []
    for tuned in found:
        kept = "the library's" if tuned.is_convolution else BUILT_IN
        cells = [
            tuned.key + (" + norm" if tuned.key.startswith("conv2d_reflect") else ""),
            f"{tuned.built_in_us:.2f}",
            "-" if tuned.best_us is None else f"{tuned.best_us:.2f}",
            f"{tuned.ratio.median:.3f}x" if tuned.ratio and tuned.won else "no",
            plan_text(tuned.best) if tuned.best and tuned.won else kept,
            "-" if known is None else f"{tuned.floor_us(known):.2f}",
        ]
        rows.append(cells)
    return markdown_table(["key", "built-in us", "tuned us", "won", "plan", "floor us"], rows)
