"""`python -m bench.step`: the whole training step, every option beside plain PyTorch's.

Plain PyTorch's step is a transcription of the original's update. All contenders begin with the same weights, images and
random decisions; a step whose first losses are others is not timed.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench import counts
from bench.agreement import Disagreement
from bench.compiled import modes
from bench.contest import Case, Contest, described, measure
from bench.limits import dtypes, measure as measure_limits
from bench.machine import stamp
from bench.peak_memory import followed
from bench.plain_cyclegan import PlainCycleGAN
from bench.timing import Contender
from cyclegan_fast.batch import Batch
from cyclegan_fast.config import Config, DataConfig, NetworkConfig, RunConfig
from cyclegan_fast.cuda_graph import WARM_UP
from cyclegan_fast.device import choose_device, name_of
from cyclegan_fast.engine import Engine
from cyclegan_fast.model import CycleGAN
from cyclegan_fast.original_names import from_original
from cyclegan_fast.step import TrainingStep

PLAIN = "plain PyTorch, float32"
AGREEMENT = 0.05
"""Relative, of the losses of the first step, to bfloat16's precision."""

Step = Callable[[], list[Tensor]]
"""One update; returns its losses, sorted by their names."""
Wants = Callable[[str], bool]


def cases(side: int, batch: int, device: torch.device, wants: Wants, *, subject: str = "step") -> Iterator[Case]:
    """A case for each precision of the device; `wants` says by their names who takes part beside plain and ours."""
    for dtype in dtypes(device):
        if device.type == "cuda" and dtype == torch.float16:
            continue  # with a loss scaler; what the hardware has bfloat16 for
        work = counts.training_step(batch, side, dtype)
        yield Case(
            subject=subject,
            case="training step",
            shape=f"{batch}x3x{side}x{side}",
            dtype=name_of(dtype),
            batch=batch,
            side=side,
            moved_bytes=work.moved_bytes,
            operations=work.operations,
            make=lambda dtype=dtype: Steps(side, batch, device, dtype, wants).contest(),  # type: ignore[misc]
        )


class Steps:
    """The steps that compete: one size of image, one batch, one device, one precision of ours."""

    def __init__(self, side: int, batch: int, device: torch.device, dtype: torch.dtype, wants: Wants) -> None:
        self.device, self.side, self.batch_size, self.dtype, self.wants = device, side, batch, dtype, wants
        torch.manual_seed(0)
        self.weights = {name: network.state_dict() for name, network in PlainCycleGAN(device=device).networks().items()}
        pixels_A, pixels_B = torch.randint(0, 256, (2, batch, side, side, 3), dtype=torch.uint8)
        corners = torch.zeros(batch, 3, dtype=torch.int64)
        self.batch = Batch(pixels_A, pixels_B, corners, corners, (side, side), (side, side))
        self.images = self.batch.to(device)
        self.ours_name = "ours" if dtype == torch.float32 else "ours --amp"
        self.last: dict[str, list[Tensor]] = {}

    def contest(self) -> Contest:
        steps: dict[str, Step] = {}
        peak_gib: dict[str, float] = {}
        for name, make in self._makers():
            if name not in (PLAIN, self.ours_name) and not self.wants(name):
                continue
            # On a CPU a step has threads, which are not followed. The one that is followed has begun to train, and
            # those that compete begin together.
            if self.device.type == "cuda" and "compile" not in name:
                _, peak_gib[name] = followed(self.device, make, _several)
                torch.cuda.empty_cache()
            steps[name] = make()
        return Contest(
            contenders={name: Contender([partial(self._noted, name, step)]) for name, step in steps.items()},
            ours=self.ours_name,
            plain=PLAIN,
            exact=self.plain()(),
            allowed=AGREEMENT,
            check=self._check_last,
            peak_gib=peak_gib,
        )

    def _makers(self) -> Iterator[tuple[str, Callable[[], Step]]]:
        is_low, ours = self.dtype != torch.float32, self.ours_name
        yield PLAIN, self.plain
        opponent = f"stock autocast, {name_of(self.dtype)}" if is_low else PLAIN
        if is_low:
            yield opponent, partial(self.plain, self.dtype)
        for mode in modes(self.device, recorded=False):
            yield f"{opponent}, torch.compile {mode}", partial(self.plain, self.dtype if is_low else None, mode)
        yield ours, self.ours
        yield f"{ours} --compile", partial(self.ours, compiled=True)
        yield f"{ours} --checkpoint-blocks", partial(self.ours, checkpoint=True)
        if self.device.type == "cuda":
            yield f"{ours} --cuda-graph off", partial(self.ours, graph=False)

    def plain(self, autocast_dtype: torch.dtype | None = None, mode: str | None = None) -> Step:
        step = PlainCycleGAN(device=self.device, autocast_dtype=autocast_dtype)
        for name, network in step.networks().items():
            network.load_state_dict(self.weights[name])
            if self.device.type == "cuda" and autocast_dtype is not None:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from the stubs
            if mode is not None:
                network.compile(mode=mode)
        return lambda: _sorted(step.update(*self.images))

    def ours(self, *, compiled: bool = False, checkpoint: bool = False, graph: bool = True) -> Step:
        config = Config(
            data=DataConfig(load_size=self.side, crop_size=self.side, batch_size=self.batch_size),
            networks=NetworkConfig(checkpoint_blocks=checkpoint),
            run=RunConfig(compile=compiled, cuda_graph="auto" if graph else "off"),
        )
        model = CycleGAN(config).to(self.device)
        for name, state in self.weights.items():
            model.get_submodule(name).load_state_dict(from_original(state))
        engine = Engine(TrainingStep(model, config, self.dtype), config, print)
        return lambda: _sorted(engine(self.batch))

    def _noted(self, name: str, step: Step) -> list[Tensor]:
        self.last[name] = step()
        return self.last[name]

    def _check_last(self) -> None:
        """What was timed last still had finite losses."""
        for name, losses in self.last.items():
            if not all(math.isfinite(float(loss)) for loss in losses):
                raise Disagreement(f"{name}: its losses are not finite after the rounds that were timed")


def _several(step: Step) -> None:
    """Until a graph is recorded, if there is one."""
    for _ in range(WARM_UP + 2):
        step()


def _sorted(losses: dict[str, Tensor]) -> list[Tensor]:
    return [losses[name] for name in sorted(losses)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--side", type=int, default=256, help="of the square images, in pixels")
    parser.add_argument("--batch-size", type=int, default=1, help="images of each domain in a step")
    parser.add_argument("--without", default="", metavar="TEXT", help="leave out contenders with this in their name")
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each contender")
    options: Any = parser.parse_args(arguments)
    device = choose_device(options.device)
    limits = measure_limits(device)
    print(f"{stamp(device).device}, torch {torch.__version__}")
    print(f"{limits.copy_gbps:.0f} GB/s copied, TFLOP/s of a matrix product: {limits.matrix_tflops}")

    def wants(name: str) -> bool:
        return not options.without or options.without not in name

    for case in cases(options.side, options.batch_size, device, wants):
        print(described(measure(case, device, limits, lambda race: race.run(options.rounds))), flush=True)


if __name__ == "__main__":
    main()
