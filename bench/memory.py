"""`python -m bench.memory`: tensor memory of a training step, and how large a crop fits in a GPU, without a GPU.

The step of `cyclegan_fast.training.step` with the fused operators, followed on tensors without memory: weights, their
low-precision copies, gradients, Adam's moments, image pools, activations, and the temporaries between and inside the
fused operators. The second step counts, when Adam has its moments; crops leave room for a sample beside it, as a CUDA
graph keeps its memory when it has run. What stands outside is allowed for by a fixed room, for the CUDA context and the
workspaces of cuDNN; how the allocator's memory splinters is not in it. The crops are therefore the largest that can
fit, and nothing of this has been measured on a GPU.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bench.measure.live_memory import BYTES_PER_GIB, live_memory
from bench.reporting.markdown import markdown_table
from cyclegan_fast.config.options import Config, NetworkConfig
from cyclegan_fast.conventions import SIDE_MULTIPLE
from cyclegan_fast.kernels.launching import run_in_interpreter
from cyclegan_fast.methods.model import Model
from cyclegan_fast.training.step import TrainingStep

CROP_UNIT = 16  # pixels: crops are searched in these steps
SMALLEST_CROP = 32  # pixels


@dataclass(frozen=True)
class StepMemory:
    """Holds the tensor memory of a step in the steady state, bytes."""

    between_steps: int
    """bytes that stay: weights, copies, gradients, Adam's moments, pools, one batch"""
    peak: int
    phase_of_peak: str
    sample: int
    """bytes on top of the peak for a picture of the gallery: a graph keeps the step's memory while one is translated"""

    @property
    def needed(self) -> int:
        return self.peak + self.sample


def step_memory(config: Config, side: int, dtype: torch.dtype, *, device: str = "meta") -> StepMemory:
    """Follow a first step, which makes Adam's moments and the pools, and measure a second one.

    Args:
        config: networks, losses, batch size and parts of a batch are read from it.
        side: of the square images, pixels, a multiple of 4.
        dtype: of convolutions and fused operators, as for `TrainingStep`.
        device: "meta", where nothing is computed, or "cpu", where the fused operators' kernels are left out.
    """
    with live_memory(device) as memory:
        with torch.device(device):
            model = Model(config)
            images = torch.rand(2, config.data.batch_size, 3, side, side)
        if config.networks.impl == "triton":
            # A training step has its model in this layout on a GPU.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from torch's stubs
        step = TrainingStep(model, config, dtype)
        step.phase = memory.in_phase
        step(*images)
        memory.begin()
        between_steps = memory.now
        step(*images)
        peak, phase_of_peak, held = memory.peak, memory.phase_of_peak, memory.now
        memory.begin()
        with torch.no_grad():
            model.translator("a2b")(images[0, :1])
        return StepMemory(between_steps, peak, phase_of_peak, memory.peak - held)


def largest_crop(peak_bytes: Callable[[int], int], room_bytes: float) -> int | None:
    """Return the largest side, a multiple of `CROP_UNIT`, whose peak fits; None where not even `SMALLEST_CROP` does.

    Each answer is a side that was evaluated and fits, beside the next one, which was evaluated and does not.
    """
    if peak_bytes(SMALLEST_CROP) > room_bytes:
        return None
    fits, too_large = SMALLEST_CROP, 2 * SMALLEST_CROP
    while peak_bytes(too_large) <= room_bytes:
        fits, too_large = too_large, 2 * too_large
    while too_large - fits > CROP_UNIT:
        middle = (fits + too_large) // 2 // CROP_UNIT * CROP_UNIT
        if peak_bytes(middle) <= room_bytes:
            fits = middle
        else:
            too_large = middle
    return fits


def row(name: str, config: Config, dtype: torch.dtype, side: int, rooms_bytes: Sequence[float]) -> list[str]:
    """Return the cells of one way to train: its memory at `side`, and the crops that fit in so many bytes."""
    memory_at = functools.cache(functools.partial(step_memory, config, dtype=dtype))
    at_side = memory_at(side)
    crops = [largest_crop(lambda crop: memory_at(crop).needed, room) for room in rooms_bytes]
    return [
        name,
        f"{at_side.between_steps / BYTES_PER_GIB:.2f} GiB",
        f"{at_side.peak / BYTES_PER_GIB:.2f} GiB",
        at_side.phase_of_peak,
        *("none" if crop is None else str(crop) for crop in crops),
    ]


def memory_table(side: int, gpus_gib: Sequence[float], reserve_gib: float) -> str:
    """Return a Markdown table of full-size networks at batch 1, each way to train in a row."""
    titles = ["batch 1", f"between steps, {side}x{side}", f"peak, {side}x{side}", "reached in"]
    titles += [f"crop in {gpu:g} GB" for gpu in gpus_gib]
    rows: list[list[str]] = []
    rooms_bytes = [(gpu - reserve_gib) * BYTES_PER_GIB for gpu in gpus_gib]
    for name, dtype in (("--amp", torch.bfloat16), ("float32", torch.float32)):
        for flag, checkpoint_blocks in (("", False), (" --checkpoint-blocks", True)):
            config = Config(networks=NetworkConfig(impl="triton", checkpoint_blocks=checkpoint_blocks))
            rows.append(row(name + flag, config, dtype, side, rooms_bytes))
    return markdown_table(titles, rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.memory",
        description="Compute, without a GPU, the tensor memory of a full-size training step and the crops that fit.",
    )
    parser.add_argument("--side", type=int, default=256, help="crop in pixels whose memory is printed, a multiple of 4")
    parser.add_argument(
        "--gpus",
        type=float,
        nargs="+",
        default=[8, 16, 24, 80],
        metavar="GB",
        help="memory of GPUs as they are sold: an 8 GB card has 8 GiB",
    )
    parser.add_argument(
        "--reserve-gib",
        type=float,
        default=1.0,
        help="GiB of each GPU left to the CUDA context and the workspaces of cuDNN",
    )
    options = parser.parse_args(arguments)
    if options.side < SMALLEST_CROP or options.side % SIDE_MULTIPLE:
        parser.error(f"--side must be at least {SMALLEST_CROP} and a multiple of {SIDE_MULTIPLE}, got {options.side}")
    # The operators take tensors that are on no GPU only in Triton's interpreter.
    return run_in_interpreter("bench.memory", arguments, lambda: print_table(options))


def print_table(options: argparse.Namespace) -> None:
    print(memory_table(options.side, options.gpus, options.reserve_gib))
    print(
        f"\nLargest square crop in steps of {CROP_UNIT} whose peak leaves {options.reserve_gib:g} GiB of the GPU free "
        "for the CUDA context and cuDNN; computed, not measured on a GPU."
    )


if __name__ == "__main__":
    sys.exit(main())
