"""`python -m bench.step`: the whole training step, every option beside plain PyTorch, in one run.

All contenders begin with the same weights and take turns, so that a shared machine's drift meets all of them; ratios
are medians over rounds. A step's arithmetic over its time is compared with a large matrix product's on the same device.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.plain_cyclegan import PlainCycleGAN
from cyclegan_fast.batch import Batch
from cyclegan_fast.config import Config, DataConfig, NetworkConfig, RunConfig
from cyclegan_fast.device import choose_device, describe, name_of, working_dtype
from cyclegan_fast.engine import Engine
from cyclegan_fast.model import CycleGAN
from cyclegan_fast.networks import PatchDiscriminator, ResnetGenerator
from cyclegan_fast.original_names import from_original
from cyclegan_fast.step import TrainingStep

PLAIN = "plain PyTorch, float32"
AGREEMENT = 0.05
"""Relative: times are compared only of steps that compute the same losses, to bfloat16's precision.

Of the first step against plain PyTorch's; of the last one only against the same step without a graph, as trajectories
of different rounding part.
"""

Losses = dict[str, Tensor]
Contender = Callable[[], Losses]


class Contest:
    """The steps that take turns: one size of image, one batch, one device.

    `wants` says by their names which contenders there are beside plain PyTorch's step; the others are not even built.
    """

    def __init__(self, device: torch.device, side: int, batch_size: int, wants: Callable[[str], bool]) -> None:
        self.device, self.side, self.batch_size = device, side, batch_size
        torch.manual_seed(0)
        self.weights = {n: m.state_dict() for n, m in PlainCycleGAN(device=device).networks().items()}
        pixels_A, pixels_B = torch.randint(0, 256, (2, batch_size, side, side, 3), dtype=torch.uint8)
        corners = torch.zeros(batch_size, 3, dtype=torch.int64)
        self.batch = Batch(pixels_A, pixels_B, corners, corners, (side, side), (side, side))
        self.images = self.batch.to(device)
        self.low, self.remark = working_dtype(device, amp=True, amp_dtype="auto")
        self.contenders: dict[str, Contender] = {}
        self.last: dict[str, Losses] = {}
        self.wants = wants
        self._enter_opponents()
        self._enter_ours()

    @property
    def has_low_precision(self) -> bool:
        return self.low != torch.float32

    def _enter(self, name: str, make: Callable[[], Contender]) -> None:
        if name == PLAIN or self.wants(name):
            self.contenders[name] = make()

    def _enter_opponents(self) -> None:
        modes = ["default", "reduce-overhead", "max-autotune"] if self.device.type == "cuda" else ["default"]
        opponents: dict[str, torch.dtype | None] = {PLAIN: None}
        if self.has_low_precision:
            opponents[f"stock autocast, {name_of(self.low)}"] = self.low
        for name, dtype in opponents.items():
            self._enter(name, partial(self.plain, dtype))
            for mode in modes:
                self._enter(f"{name}, torch.compile {mode}", partial(self.plain, dtype, mode))

    def _enter_ours(self) -> None:
        ways = {"": torch.float32} | ({" --amp": self.low} if self.has_low_precision else {})
        for flag, dtype in ways.items():
            self._enter(f"ours{flag}", partial(self.ours, dtype))
            self._enter(f"ours{flag} --compile", partial(self.ours, dtype, compiled=True))
            self._enter(f"ours{flag} --checkpoint-blocks", partial(self.ours, dtype, checkpoint=True))
            if self.device.type == "cuda":
                self._enter(f"ours{flag} --cuda-graph off", partial(self.ours, dtype, graph=False))

    def plain(self, autocast_dtype: torch.dtype | None = None, mode: str | None = None) -> Contender:
        step = PlainCycleGAN(device=self.device, autocast_dtype=autocast_dtype)
        for name, network in step.networks().items():
            network.load_state_dict(self.weights[name])
            if self.device.type == "cuda" and autocast_dtype is not None:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from the stubs
            if mode is not None:
                network.compile(mode=mode)
        return lambda: step.update(*self.images)

    def ours(
        self, dtype: torch.dtype, *, compiled: bool = False, checkpoint: bool = False, graph: bool = True
    ) -> Contender:
        config = Config(
            data=DataConfig(load_size=self.side, crop_size=self.side, batch_size=self.batch_size),
            networks=NetworkConfig(checkpoint_blocks=checkpoint),
            run=RunConfig(compile=compiled, cuda_graph="auto" if graph else "off"),
        )
        model = CycleGAN(config).to(self.device)
        for name, state in self.weights.items():
            model.get_submodule(name).load_state_dict(from_original(state))
        engine = Engine(TrainingStep(model, config, dtype), config, print)
        return lambda: engine(self.batch)

    def time(self, name: str) -> float:
        """Seconds of one step."""
        started = time.perf_counter()
        self.last[name] = self.run(name)
        return time.perf_counter() - started

    def run(self, name: str) -> Losses:
        losses = self.contenders[name]()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return losses

    def check(self) -> None:
        """Every contender's first step has the plain one's losses."""
        expected = {name: float(loss) for name, loss in self.run(PLAIN).items()}
        for contender in self.contenders.keys() - {PLAIN}:
            for name, loss in self.run(contender).items():
                if abs(float(loss) / expected[name] - 1) > AGREEMENT:
                    raise AssertionError(f"{contender}: loss {name} is {float(loss)}, plain PyTorch's {expected[name]}")

    def check_end(self) -> None:
        """What was timed last had finite losses, and a replayed graph those of the same number of eager steps."""
        for contender, losses in self.last.items():
            eager = self.last.get(f"{contender} --cuda-graph off", losses)
            for name, loss in losses.items():
                if not abs(float(loss) / float(eager[name]) - 1) <= AGREEMENT:
                    raise AssertionError(f"{contender}: loss {name} ends at {float(loss)}, eager {float(eager[name])}")

    def arithmetic(self) -> float:
        """Operations (two a multiply-add) of the convolutions of one step.

        Six generator passes with both gradients; the discriminators judge two fakes without and four images with
        gradients of their weights.
        """
        with torch.device("meta"):
            image = torch.empty(self.batch_size, 3, self.side, self.side)
            counts = []
            for network in (ResnetGenerator(impl="reference"), PatchDiscriminator(impl="reference")):
                with FlopCounterMode(display=False) as counter, torch.no_grad():
                    network(image)
                counts.append(counter.get_total_flops())
        generator, discriminator = counts
        return float(6 * 3 * generator + (2 * 2 + 4 * 3) * discriminator)


def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product: the best of a few.

    On a CPU also as a 1x1 convolution, which oneDNN computes: the library behind PyTorch's float32 product (MKL) leaves
    AVX-512 idle on AMD's processors.
    """
    size = 8192 if device.type == "cuda" else 2048
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    image = one.view(1, 64, size // 64, size).permute(0, 3, 1, 2)
    products: list[Callable[[], Tensor]] = [lambda: one @ other]
    if device.type == "cpu":
        products.append(lambda: F.conv2d(image, other[:, :, None, None]))
    best = 0.0
    for product in 8 * products:
        started = time.perf_counter()
        product()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def measure(contest: Contest, rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender's steps, one a round, after warm-up."""
    contest.check()
    warm_up = 4 if contest.device.type == "cuda" else 1  # graphs are recorded in the fourth step
    seconds: dict[str, list[float]] = {name: [] for name in contest.contenders}
    for number in range(warm_up + rounds):
        for name in contest.contenders:
            took = contest.time(name)
            if number >= warm_up:
                seconds[name].append(took)
    contest.check_end()
    return seconds


def table(contest: Contest, seconds: dict[str, list[float]]) -> str:
    """Markdown: medians, ratios to plain PyTorch round by round, and the share of the matrix product's speed."""
    peaks = {dtype: matrix_peak(contest.device, dtype) for dtype in {torch.float32, contest.low}}
    arithmetic = contest.arithmetic()
    lines = [
        f"| {contest.side}x{contest.side}, batch {contest.batch_size} | median | plain's time / this | of the peak |",
        "| --- | --- | --- | --- |",
    ]
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = statistics.median(plain / own for plain, own in zip(seconds[PLAIN], values, strict=True))
        is_low = "--amp" in name or "autocast" in name
        share = arithmetic / median / peaks[contest.low if is_low else torch.float32]
        lines.append(f"| {name} | {median * 1e3:.1f} ms | {ratio:.2f} | {share:.0%} |")
    shown = ", ".join(f"{peak / 1e12:.3g} TFLOP/s in {name_of(dtype)}" for dtype, peak in peaks.items())
    lines += ["", f"{describe(contest.device)}, torch {torch.__version__}; {len(seconds[PLAIN])} rounds."]
    lines += [f"The peak is a large matrix product's: {shown}; a step is {arithmetic / 1e12:.3g} TFLOP."]
    if contest.remark:
        lines.append(contest.remark)
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.step", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--side", type=int, default=256, help="of the square images, in pixels")
    parser.add_argument("--batch-size", type=int, default=1, help="images of each domain in a step")
    parser.add_argument("--without", default="", metavar="TEXT", help="leave out contenders with this in their name")
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each contender")
    options: Any = parser.parse_args(arguments)
    contest = Contest(
        choose_device(options.device),
        options.side,
        options.batch_size,
        wants=lambda name: not options.without or options.without not in name,
    )
    print(table(contest, measure(contest, options.rounds)))


if __name__ == "__main__":
    main()
