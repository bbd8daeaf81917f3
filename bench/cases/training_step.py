"""Makes the contests of the whole training step, every option beside plain PyTorch's; `bench.step` is the command.

Plain PyTorch's step is a transcription of the original's update. All contenders begin with the same weights, images and
random decisions; a step that does not begin as plain PyTorch's does, in losses and weights, is not timed.
"""

import gc
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.cases import counts
from bench.cases.plain_cyclegan import PAPER_SIZE, PLAIN_FLOAT32, PlainCycleGAN, PlainNetworkSize
from bench.cases.whole_step_graph import IN_A_GRAPH, WholeStepGraph
from bench.measure.agreement import Disagreement
from bench.measure.compiled import forget_compiled, modes, opponent_failures
from bench.measure.contest import Case, Contest, why_not_run
from bench.measure.limits import dtypes
from bench.measure.peak_memory import followed
from bench.measure.timing import Contender
from cyclegan_fast.checkpoint.original import from_original
from cyclegan_fast.config.options import Config, DataConfig, NetworkConfig, RunConfig, Streams
from cyclegan_fast.data.batch import Batch
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.cuda_graph import CudaRecorder, GraphRecorder
from cyclegan_fast.system.device import name_of
from cyclegan_fast.training.cuda_graph import WARM_UP
from cyclegan_fast.training.engine import TrainingEngine
from cyclegan_fast.training.step import TrainingStep
from cyclegan_fast.training.update.choice import streams_of

AGREEMENT = 0.05
"""The largest relative difference of a loss in the first step, to bfloat16's precision; n times as much in the n-th."""

AGREEMENT_BELOW_64 = 0.15
"""Allows the same for images smaller than 64x64: of 32x32 a discriminator gives four scores, whose loss moved by up to
0.084 by the rounding of bfloat16 alone (bench/results/LOG.md, 2026-11-30)."""

MOST_IN_ALL_MODES = 4  # images: larger batches compete in one mode of torch.compile
ROOMY_BYTES = 120e9
"""The memory of a GPU from which on larger batches compete in a whole-step graph too. By what a step of batch 1 takes
on a CPU, a graph of batch 16 holds about 37 GiB, beside ours with 20 and a launched step with 37; not measured."""
LEAST_COSINE = 0.5
"""The least cosine between the way that a network's weights go in the first steps and that of plain PyTorch's."""

Wants = Callable[[str], bool]


def agreement_at(side: int) -> float:
    """Return the largest relative difference of a loss that is allowed in the first step of images of this side."""
    return AGREEMENT if side >= 64 else AGREEMENT_BELOW_64


def training_step_cases(
    side: int,
    batch: int,
    device: torch.device,
    wants: Wants,
    *,
    subject: str = "step",
    size: PlainNetworkSize = PAPER_SIZE,
    agreement: float = AGREEMENT,
) -> Iterator[Case]:
    """Yield a case for each precision of the device; `wants` says, by name, who takes part beside plain and ours."""
    for dtype in dtypes(device):
        if device.type == "cuda" and dtype == torch.float16:
            continue  # float16 needs a loss scaler; the hardware has bfloat16 instead
        work = counts.training_step_workload(batch, side, dtype, size)
        make = partial(_contest, side, batch, device, dtype, wants, size, agreement)
        yield Case.of_images(subject, "training step", batch, side, dtype, work, make)


def _contest(
    side: int,
    batch: int,
    device: torch.device,
    dtype: torch.dtype,
    wants: Wants,
    size: PlainNetworkSize,
    agreement: float,
) -> Contest:
    return Steps(side, batch, device, dtype, wants, size, agreement).contest()


class Steps:
    """Makes the steps that compete: one size of image and networks, one batch, one device, one precision of ours."""

    def __init__(
        self,
        side: int,
        batch: int,
        device: torch.device,
        dtype: torch.dtype,
        wants: Wants,
        size: PlainNetworkSize = PAPER_SIZE,
        agreement: float = AGREEMENT,
    ) -> None:
        self.device, self.side, self.batch_size, self.dtype, self.wants = device, side, batch, dtype, wants
        self.size, self.agreement = size, agreement
        torch.manual_seed(0)
        self.weights = {name: network.state_dict() for name, network in self._plain_networks().networks().items()}
        pixels_A, pixels_B = torch.randint(0, 256, (2, batch, side, side, 3), dtype=torch.uint8)
        if device.type == "cuda":
            pixels_A, pixels_B = pixels_A.pin_memory(), pixels_B.pin_memory()
        corners = torch.zeros(batch, 3, dtype=torch.int64)
        self.batch = Batch(pixels_A, pixels_B, corners, corners, (side, side), (side, side))
        self.ours_name = "ours" if dtype == torch.float32 else "ours --amp"
        self.last: dict[str, list[Tensor]] = {}

    def contest(self) -> Contest:
        forget_compiled()
        expected = self._begun(self.plain())
        steps: dict[str, CompetingStep] = {}
        peak_gib: dict[str, float] = {}
        wrong: dict[str, str] = {}
        for name, make in self._makers():
            if name not in (PLAIN_FLOAT32, self.ours_name) and not self.wants(name):
                continue
            try:
                # On a CPU a step computes in threads, whose memory is not followed.
                if self.device.type == "cuda" and "compile" not in name:
                    followed_step, peak_gib[name] = followed(self.device, make, self._begun)
                    del followed_step
                step = make()
                reason = _difference(self._begun(step), expected, self.agreement)
            except opponent_failures() as error:
                if name in (PLAIN_FLOAT32, self.ours_name):
                    raise
                reason = why_not_run(error)
            if reason is None:
                steps[name] = step
            elif name in (PLAIN_FLOAT32, self.ours_name):
                raise Disagreement(f"{name}: {reason}: nothing is reported")
            else:
                wrong[name] = reason
            gc.collect()
        return Contest(
            contenders={name: Contender([partial(self._noted, name, step)]) for name, step in steps.items()},
            ours=self.ours_name,
            plain=PLAIN_FLOAT32,
            check=self._check_last,
            in_one_thread=torch.get_num_threads() == 1,
            peak_gib=peak_gib,
            wrong=wrong,
        )

    def _begun(self, step: "CompetingStep") -> "Begun":
        """Take the first steps; on a GPU as many as it takes for a graph to be recorded and replayed."""
        before = step.weights()
        count = WARM_UP + 2 if self.device.type == "cuda" else 1
        losses = [[float(loss) for loss in step()] for _ in range(count)]
        return Begun(losses, [after - weight for after, weight in zip(step.weights(), before, strict=True)])

    def _makers(self) -> Iterator[tuple[str, Callable[[], "CompetingStep"]]]:
        is_low, ours = self.dtype != torch.float32, self.ours_name
        yield PLAIN_FLOAT32, self.plain
        opponent = f"stock autocast, {name_of(self.dtype)}" if is_low else PLAIN_FLOAT32
        if is_low:
            yield opponent, partial(self.plain, self.dtype)
        elif self.device.type == "cuda":
            yield f"{PLAIN_FLOAT32}, channels last", partial(self.plain, layout=torch.channels_last)
        # Compiled code with CUDA graphs keeps its memory for good: at batch 16 one mode more would not fit 80 GB.
        for mode in modes(self.device, recorded=False)[: 1 if self.batch_size > MOST_IN_ALL_MODES else None]:
            yield f"{opponent}, torch.compile {mode}", partial(self.plain, self.dtype if is_low else None, mode)
        config = self.config()
        yield ours, self.ours
        yield f"{ours} --compile", partial(self.ours, self.config(compile=True))
        checkpointed = replace(config, networks=replace(config.networks, checkpoint_blocks=True))
        yield f"{ours} --checkpoint-blocks", partial(self.ours, checkpointed)
        if self.device.type == "cuda":
            yield f"{ours} --cuda-graph off", partial(self.ours, self.config(cuda_graph="off"))
            other: Streams = "1" if streams_of(config, self.device) == 2 else "2"
            yield f"{ours} --streams {other}", partial(self.ours, self.config(streams=other))
            yield f"{ours} --paired", partial(self.ours, self.config(paired=True))
            yield from self._whole_step_graphs(opponent)

    def _whole_step_graphs(self, opponent: str) -> Iterator[tuple[str, Callable[[], "CompetingStep"]]]:
        """Yield the opponent in one graph, as it is and compiled, the quickest to make first.

        They are the last ones: where one cannot be recorded, PyTorch may not record another in this process. A graph
        keeps its memory for good: of larger batches there is one, of the last mode that is wanted.
        """
        low = self.dtype if self.dtype != torch.float32 else None
        graphs = {f"{opponent} {IN_A_GRAPH}": partial(self.recorded_plain, low)}
        for mode in modes(self.device, recorded=True):
            name = f"{opponent}, torch.compile {mode.removesuffix('-no-cudagraphs')} {IN_A_GRAPH}"
            graphs[name] = partial(self.recorded_plain, low, mode)
        wanted = [(name, make) for name, make in graphs.items() if self.wants(name)]
        if self.batch_size > MOST_IN_ALL_MODES:
            is_roomy = torch.cuda.get_device_properties(self.device).total_memory >= ROOMY_BYTES
            wanted = wanted[-1:] if is_roomy else []
        yield from wanted

    def plain(
        self,
        autocast_dtype: torch.dtype | None = None,
        mode: str | None = None,
        layout: torch.memory_format | None = None,
    ) -> "CompetingStep":
        """Return the original's update; with autocast on a GPU it is channels last, unless `layout` says otherwise."""
        plain = self._plain_networks(autocast_dtype, keeps_fakes=mode is not None)
        self._prepare(plain, mode, layout)
        # The images come from the host, as ours do.
        return CompetingStep(lambda: plain.update(*self.batch.to(self.device)), plain.networks())

    def recorded_plain(
        self, autocast_dtype: torch.dtype | None, mode: str | None = None, recorder: GraphRecorder | None = None
    ) -> "CompetingStep":
        """Return the original's update in one CUDA graph, see `WholeStepGraph`."""
        plain = self._plain_networks(autocast_dtype, recordable_adam=True)
        self._prepare(plain, mode)
        graph = WholeStepGraph(
            plain, self.device, recorder or CudaRecorder(self.device, "--without graph", shares_memory=True)
        )
        return CompetingStep(lambda: graph(self.batch), plain.networks())

    def _prepare(self, plain: PlainCycleGAN, mode: str | None, layout: torch.memory_format | None = None) -> None:
        """Give the networks the weights that all begin with, and a layout; compile them in a mode."""
        if layout is None:
            tensor_cores = self.device.type == "cuda" and plain.autocast_dtype is not None
            layout = torch.channels_last if tensor_cores else torch.contiguous_format
        for name, network in plain.networks().items():
            network.load_state_dict(self.weights[name])
            network.to(memory_format=layout)  # type: ignore[call-overload]  # absent from torch's stubs
            if mode is not None:
                network.compile(mode=mode, dynamic=False, fullgraph=True)

    def config(self, **run: Any) -> Config:
        """Return the configuration of our update, with these options of `RunConfig`."""
        return Config(
            data=DataConfig(load_size=self.side, crop_size=self.side, batch_size=self.batch_size),
            networks=network_config(self.size),
            run=RunConfig(**run),
        )

    def ours(self, config: Config | None = None) -> "CompetingStep":
        """Return our update, by default of `config()`."""
        config = config or self.config()
        engine = engine_from(self.weights, config, self.device, self.dtype)
        model = engine.step.model
        return CompetingStep(lambda: engine(self.batch), {name: model.get_submodule(name) for name in self.weights})

    def _plain_networks(
        self, autocast_dtype: torch.dtype | None = None, *, keeps_fakes: bool = False, recordable_adam: bool = False
    ) -> PlainCycleGAN:
        return PlainCycleGAN(
            ngf=self.size.width,
            ndf=self.size.width,
            blocks=self.size.blocks,
            device=self.device,
            autocast_dtype=autocast_dtype,
            keeps_fakes=keeps_fakes,
            recordable_adam=recordable_adam,
        )

    def _noted(self, name: str, step: "CompetingStep") -> list[Tensor]:
        self.last[name] = step()
        return self.last[name]

    def _check_last(self) -> None:
        """Check that the steps that were timed last still had finite losses; raises Disagreement."""
        for name, losses in self.last.items():
            if not all(math.isfinite(float(loss)) for loss in losses):
                raise Disagreement(f"{name}: its losses are not finite after the rounds that were timed")


def network_config(size: PlainNetworkSize) -> NetworkConfig:
    """Return the options of our networks in the size of plain PyTorch's."""
    generator: Literal["resnet_9", "resnet_6"] = "resnet_9" if size.blocks == 9 else "resnet_6"
    return NetworkConfig(generator=generator, ngf=size.width, ndf=size.width)


def engine_from(
    weights: Mapping[str, Mapping[str, Tensor]], config: Config, device: torch.device, dtype: torch.dtype
) -> TrainingEngine:
    """Return our training of networks that begin with plain PyTorch's weights, by name, and compute in `dtype`."""
    model = Model(config).to(device)
    for name, state in weights.items():
        model.get_submodule(name).load_state_dict(from_original(dict(state)))
    return TrainingEngine(TrainingStep(model, config, dtype), config, print)


class CompetingStep:
    """Carries out one update each call, and returns its losses, sorted by their names.

    Args:
        update: Carries the update out; returns losses by name.
        networks: The networks by the names of the original.
    """

    def __init__(self, update: Callable[[], dict[str, Tensor]], networks: Mapping[str, nn.Module]) -> None:
        self.update = update
        self.networks = networks

    def __call__(self) -> list[Tensor]:
        losses = self.update()
        return [losses[name] for name in sorted(losses)]

    def weights(self) -> list[Tensor]:
        """Return copies of the convolutions' weights of each network, in a row: float32 on the host."""
        return [
            torch.cat([p.detach().flatten().float().cpu() for p in self.networks[name].parameters() if p.dim() == 4])
            for name in sorted(self.networks)
        ]


@dataclass(frozen=True)
class Begun:
    """Holds what the first steps did: their losses, and how far each network's weights went."""

    losses: list[list[float]]
    movements: list[Tensor]


def _difference(found: Begun, expected: Begun, agreement: float = AGREEMENT) -> str | None:
    """Return why these steps are not the same training, or None if they are.

    Losses of the first step do not know of gradients, Adam or a graph's replay. Weights do: Adam's first steps go by
    the signs of gradients, which rounding turns round where they are small, so that they agree in direction only.
    """
    for number, (one, other) in enumerate(zip(found.losses, expected.losses, strict=True), 1):
        for loss, wanted in zip(one, other, strict=True):
            if not abs(loss / wanted - 1) <= number * agreement:
                return f"a loss of step {number} is {loss:.4g} where plain PyTorch has {wanted:.4g}"
    for movement, wanted_movement in zip(found.movements, expected.movements, strict=True):
        along = float(F.cosine_similarity(movement, wanted_movement, dim=0))
        if not along >= LEAST_COSINE:
            return f"its weights go another way: the cosine with plain PyTorch's is {along:.2f}"
    return None
