"""`python -m bench.tune`: measure plans of the fused operators on a GPU and write `kernels/tuned/<gpu>.json`.

A key of this table is what a plan depends on: pass, channels, pad and dtype, and how many images and pixels there are,
each up to a power of two. It is tuned for all sites that share it, each as often as it runs in a network. A plan that
does not compile or launch, or whose results are less exact than the built-in plan's, is left out. The others race
against the built-in plan one by one, the best of them once more and longer. A plan goes into the table where it is at
least 2% faster in the median round. For the residual blocks' convolution the opponent is the library's, with the norm
behind it on both sides.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench.measure import limits
from bench.tuning import tuner
from bench.tuning.trials import TUNED_DTYPES, batches_of_a_step
from bench.tuning.tuned_table import tuned_markdown, tuning
from bench.tuning.tuner import EVERYTHING, DeviceLost, Tuned, show_status
from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.checking.sites import NormSite, all_sites, discriminator_sites, generator_sites
from cyclegan_fast.kernels.gpus import GPUS, gpu_of, planning_for
from cyclegan_fast.kernels.launching import run_in_interpreter
from cyclegan_fast.kernels.triton_language import INSTALLED, INTERPRETED
from cyclegan_fast.system.device import has_bfloat16, name_of, set_determinism
from cyclegan_fast.system.errors import UserError, run_command

_SIDE = 256
INTERPRETED_SIZE = {"width": 16, "side": 32}
INTERPRETED_VISIT = dataclasses.replace(EVERYTHING, rounds_each=1, rounds=3)
INTERPRETED_GPU = dataclasses.replace(GPUS[90], name=f"{GPUS[90].name} in the interpreter")


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
        choices=[name_of(dtype) for dtype in TUNED_DTYPES],
        help="default: bfloat16 float16 float32, as far as the GPU has them",
    )
    parser.add_argument(
        "--batches",
        nargs="+",
        type=_positive,
        metavar="N",
        help="images of each domain in a step, which gives networks N and 2 N at once; default: 1 16",
    )
    parser.add_argument("--side", type=int, help=f"of the square images, pixels, a multiple of 8; default: {_SIDE}")
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
    known = limits.measure_limits(device)
    dtypes = _dtypes(options) or [dtype for dtype in TUNED_DTYPES if dtype != torch.bfloat16 or has_bfloat16(device)]
    sites = list(all_sites(options.side or _SIDE))
    batches = [batches_of_a_step(batch) for batch in sorted(options.batches or [1, 16])]
    _tune_and_print(device, sites, dtypes, batches, until_s, options.out or launch.TUNED, known)
    return 0


def _tune_in_interpreter(options: argparse.Namespace) -> None:
    until_s = tuner.now() + options.seconds
    size = INTERPRETED_SIZE | ({} if options.side is None else {"side": options.side})
    sites = [*generator_sites(blocks=2, **size), *discriminator_sites(**size)]
    dtypes = _dtypes(options) or list(TUNED_DTYPES)
    print("In Triton's interpreter, where times mean nothing:")
    with planning_for(INTERPRETED_GPU):
        batches = [batches_of_a_step(batch) for batch in sorted(options.batches or [1])]
        _tune_and_print(torch.device("cpu"), sites, dtypes, batches, until_s, options.out, None)


def _dtypes(options: argparse.Namespace) -> list[torch.dtype]:
    return [dtype for dtype in TUNED_DTYPES if name_of(dtype) in options.dtypes]


def _tune_and_print(
    device: torch.device,
    sites: Sequence[NormSite],
    dtypes: Sequence[torch.dtype],
    batches: Sequence[Sequence[int]],
    until_s: float,
    out: Path,
    known: limits.Limits | None,
) -> None:
    """Tune and print what was found, however it ends."""
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
            _print(f"\n{gpu.name}, times of a site\n\n{tuned_markdown(found, known)}\n\n{path}")


def _print(text: str) -> None:
    show_status("")
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
