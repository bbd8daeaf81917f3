"""`python -m bench.tune`: measure plans of the fused operators on a GPU and write `kernels/tuned/<gpu>.json`.

A key of this table is one shape, direction, pad and dtype, and is tuned for all sites that share it, each as often as
it runs in a network. A plan that does not compile or launch, or whose results are less exact than the built-in plan's,
is left out. The others race against the built-in plan one by one, the best of them once more and longer. A plan goes
into the table where it is at least 2% faster in the median round. For the residual blocks' convolution the opponent is
the library's, with the norm behind it on both sides.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.measure import limits
from bench.tuning import tuner
from bench.tuning.candidates import described
from bench.tuning.trials import DTYPES, batches_of_a_step, tasks
from bench.tuning.tuner import BUILT_IN, EVERYTHING, PAYS, DeviceLost, Tell, Tuned, Tuner, Visit, show_status
from cyclegan_fast.system.device import has_bfloat16, name_of, set_determinism
from cyclegan_fast.system.errors import UserError, run_command
from cyclegan_fast.system.files import write_atomically
from kernels import plans as launch
from kernels.gpus import GPUS, gpu_of, planning_for
from kernels.launching import run_in_interpreter
from kernels.sites import NormSite, all_sites, discriminator_sites, generator_sites
from kernels.triton_language import INSTALLED, INTERPRETED

SIDE = 256
INTERPRETED_SIZE = {"width": 16, "side": 32}
INTERPRETED_VISIT = dataclasses.replace(EVERYTHING, rounds_each=1, rounds=3)
INTERPRETED_GPU = dataclasses.replace(GPUS[90], name=f"{GPUS[90].name} in the interpreter")


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
        device: the GPU, or the CPU in Triton's interpreter.
        sites: from `kernels.sites`.
        dtypes, batches: that plans are made for; batches in groups, of which the first one comes first.
        until_s: by `time.monotonic()`; no key begins after it, and no further candidate of a key is tried.
        out: folder of the table. Plans that the file has for other keys are kept, as are those of keys that time did
            not suffice for. Where it is `launch.TUNED`, this process runs by what was written.
        visits: how often keys are gone through, and how many candidates are tried each time.
        key_s: seconds after which no further candidate of a key is tried, so that others have their turn.
        tell: is given a line for each key, and one for each candidate that was left out.

    Raises ValueError where the file is no table, UserError where it cannot be written, DeviceLost when an error leaves
    the GPU unusable.
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
    """An entry where it pays: a norm without one runs by rule. A convolution's says whether it is used at all."""
    if tuned.best is not None and tuned.is_convolution:
        entries[tuned.key] = dataclasses.asdict(tuned.best) | {"beats_library": tuned.won}
    elif tuned.best is not None and tuned.won:
        entries[tuned.key] = dataclasses.asdict(tuned.best)
    elif tuned.complete:
        entries.pop(tuned.key, None)


def _write(path: Path, entries: Mapping[str, Any]) -> None:
    """A line for each key, so that a difference between versions can be read."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(entry)}" for key, entry in entries.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{{\n{lines}\n}}\n".encode())
    launch.forget_tuned()


def _line(tuned: Tuned) -> str:
    """One key for a terminal."""
    text = f"{tuned.key}: {'library' if tuned.is_convolution else BUILT_IN} {tuned.built_in_us:.2f} us"
    if tuned.best is None or tuned.ratio is None:
        return f"{text}; no other plan is correct"
    verdict = "taken" if tuned.won else f"less than {PAYS - 1:.0%} better, not taken"
    return f"{text}; {tuned.best_us:.2f} us, {tuned.ratio.median:.3f}x by {described(tuned.best)}: {verdict}"


def table(found: Sequence[Tuned], known: limits.Limits | None = None) -> str:
    """A Markdown table. The floor, bytes over copy bandwidth or operations over matrix throughput, is by `known`."""
    lines = ["| key | built-in us | tuned us | won | plan | floor us |", "| --- | --- | --- | --- | --- | --- |"]
    for tuned in found:
        kept = "the library's" if tuned.is_convolution else BUILT_IN
        cells = [
            tuned.key + (" + norm" if tuned.is_convolution else ""),
            f"{tuned.built_in_us:.2f}",
            "-" if tuned.best_us is None else f"{tuned.best_us:.2f}",
            f"{tuned.ratio.median:.3f}x" if tuned.ratio and tuned.won else "no",
            described(tuned.best) if tuned.best and tuned.won else kept,
            "-" if known is None else f"{tuned.floor_us(known):.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# --- the command -----------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    smallest = INTERPRETED_SIZE["side"]
    if options.side is not None and (options.side < smallest or options.side % 8):
        parser.error(f"--side must be a multiple of 8 and at least {smallest}, got {options.side}")
    if not options.interpret:
        return run_command(lambda: _tune_on_gpu(options))
    if options.out is None or options.out.resolve() == launch.TUNED.resolve():
        parser.error("--interpret needs an --out of its own: its times mean nothing")
    return run_command(lambda: run_in_interpreter("bench.tune", arguments, lambda: _tune_in_interpreter(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.tune",
        description="Measure plans of the fused operators on this GPU. Those that beat the built-in ones, and whether "
        "our convolution beats the library's, are written into a table that the operators read.",
    )
    parser.add_argument(
        "--dtypes",
        nargs="+",
        default=[],
        choices=[name_of(dtype) for dtype in DTYPES],
        help="default: bfloat16 float16 float32, as far as the GPU has them",
    )
    parser.add_argument(
        "--batches",
        nargs="+",
        type=_positive,
        metavar="N",
        help="images of each domain in a step, which gives networks N and 2 N at once; default: 1 16",
    )
    parser.add_argument("--side", type=int, help=f"of the square images, pixels, a multiple of 8; default: {SIDE}")
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="no key begins after so long; the most important are first"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="of the table; default: kernels/tuned")
    parser.add_argument(
        "--interpret",
        action="store_true",
        help="without a GPU: run all of this in Triton's interpreter, on narrow networks (default: --side "
        f"{INTERPRETED_SIZE['side']} --batches 1), and write into --out alone; the times mean nothing",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be positive, got {value}")
    return value


def _tune_on_gpu(options: argparse.Namespace) -> int:
    if not INSTALLED:
        raise UserError("bench.tune needs the triton package, which has Linux wheels only")
    if not torch.cuda.is_available():
        raise UserError(
            f"PyTorch {torch.__version__} sees no NVIDIA GPU here, and plans are measured on one; to try the tuner "
            "itself: --interpret --out FOLDER"
        )
    if INTERPRETED:
        raise UserError("TRITON_INTERPRET=1 is set: unset it to measure plans on the GPU")
    until_s = tuner.now() + options.seconds
    device = torch.device("cuda", torch.cuda.current_device())
    set_determinism(False)  # cuDNN times its algorithms, as in training
    known = limits.measure(device)
    dtypes = _dtypes(options) or [dtype for dtype in DTYPES if dtype != torch.bfloat16 or has_bfloat16(device)]
    sites = list(all_sites(options.side or SIDE))
    batches = [batches_of_a_step(batch) for batch in sorted(options.batches or [1, 16])]
    _tune_and_print(device, sites, dtypes, batches, until_s, options.out or launch.TUNED, known)
    return 0


def _tune_in_interpreter(options: argparse.Namespace) -> None:
    until_s = tuner.now() + options.seconds
    size = INTERPRETED_SIZE | ({} if options.side is None else {"side": options.side})
    sites = [*generator_sites(blocks=2, **size), *discriminator_sites(**size)]
    dtypes = _dtypes(options) or list(DTYPES)
    print("In Triton's interpreter, where times mean nothing:")
    with planning_for(INTERPRETED_GPU):
        batches = [batches_of_a_step(batch) for batch in sorted(options.batches or [1])]
        _tune_and_print(torch.device("cpu"), sites, dtypes, batches, until_s, options.out, None)


def _dtypes(options: argparse.Namespace) -> list[torch.dtype]:
    return [dtype for dtype in DTYPES if name_of(dtype) in options.dtypes]


def _tune_and_print(
    device: torch.device,
    sites: Sequence[NormSite],
    dtypes: Sequence[torch.dtype],
    batches: Sequence[Sequence[int]],
    until_s: float,
    out: Path,
    known: limits.Limits | None,
) -> None:
    """What was found is printed however it ends."""
    gpu = gpu_of(torch.empty(0, device=device))
    path = launch.tuned_path(gpu.name, out)
    try:
        launch.read_tuned(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    found: list[Tuned] = []
    try:
        visit = INTERPRETED_VISIT if device.type == "cpu" else EVERYTHING
        for tuned in tuning(device, sites, dtypes, batches, until_s, out, _print, visits=[visit]):
            found.append(tuned)
    except DeviceLost as error:
        raise DeviceLost(f"{error}; {len(found)} keys were tuned before and are in {path}") from error
    finally:
        if found:
            _print(f"\n{gpu.name}, times of a site\n\n{table(found, known)}\n\n{path}")


def _print(text: str) -> None:
    show_status("")
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
