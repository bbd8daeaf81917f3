"""Holds what `bench.tune` tries plans on: each key of a tuned table with its sites, operands and exact results."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases.operators import WORKLOADS, operand_sets
from bench.measure.agreement import ALLOWED
from bench.measure.timing import Call
from bench.tuning.candidates import conv_candidates, edge_candidates, norm_candidates, thin_candidates
from cyclegan_fast.kernels import plans as launch
from cyclegan_fast.kernels.checking.cases import plain_results
from cyclegan_fast.kernels.checking.sites import NormSite, Operands, run_backward, run_forward
from cyclegan_fast.kernels.conv2d import conv_forward
from cyclegan_fast.kernels.gpus import Gpu
from cyclegan_fast.kernels.norm.backward import norm_backward
from cyclegan_fast.kernels.norm.forward import norm_forward
from cyclegan_fast.kernels.plans import ConvPlan, NormPass as Direction, NormPlan, Shape, ThinPlan
from cyclegan_fast.kernels.residual_block import input_gradient
from cyclegan_fast.kernels.thin_convolution import convolution as thin
from cyclegan_fast.kernels.traffic import plain_forward

TUNED_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""The precisions that tables have plans for, the most important first."""

Plan = NormPlan | ConvPlan | ThinPlan | None
"""A plan that is tried; None is the library's convolution."""
RunPlan = Callable[[Plan, NormSite, Any], list[Tensor]]


@dataclass(frozen=True)
class Trial:
    """Holds operands in memory and runs plans on them."""

    sites: Sequence[NormSite]
    sets: Sequence[Sequence[Any]]
    """sets of operands of each site: enough to go past the cache where a site's do not stay in it"""
    run: RunPlan
    exact: list[Tensor]
    """results of all sites on their first operands, float64"""

    def results(self, plan: Plan) -> list[Tensor]:
        """Return the results of a plan at all sites, on their first operands."""
        return [x for site, its in zip(self.sites, self.sets, strict=True) for x in self.run(plan, site, its[0])]

    def calls(self, plan: Plan) -> list[Call]:
        """Return calls of each site as often as a network runs it, for each set; neighbours have different operands."""
        return [
            partial(self.run, plan, site, its[(start + repeat) % len(its)])
            for start in range(len(self.sets[0]))
            for site, its in zip(self.sites, self.sets, strict=True)
            for repeat in range(site.times)
        ]


@dataclass(frozen=True)
class TuningTask(ABC):
    """Describes the sites that share a key, and makes trials of them."""

    sites: tuple[NormSite, ...]
    batch: int
    dtype: torch.dtype

    @property
    def shape(self) -> Shape:
        return self.sites[0].shape(self.batch)

    @property
    def pad(self) -> int:
        return self.sites[0].pad

    @property
    def times(self) -> int:
        return sum(site.times for site in self.sites)

    @property
    @abstractmethod
    def key(self) -> str:
        """Return the key in the tuned table."""

    def at_batch(self, batch: int) -> str:
        """Return the key of the same sites for another batch."""
        return dataclasses.replace(self, batch=batch).key

    @property
    @abstractmethod
    def moved_bytes(self) -> int:
        """Return the bytes that must move, at all sites as often as they run."""

    @property
    def operations(self) -> int:
        """Return the operations on matrices, at all sites as often as they run."""
        return 0

    @property
    def plausible_error(self) -> float:
        """Return the error that no right plan exceeds."""
        return ALLOWED[self.dtype]

    @abstractmethod
    def plans(self, gpu: Gpu) -> Sequence[Plan]:
        """Return each plan once, the built-in one first."""

    @abstractmethod
    def operands(self, site: NormSite, device: torch.device, gpu: Gpu) -> Any:
        """Return random operands for one call."""

    @abstractmethod
    def runner(self, entries: Mapping[str, Any], gpu: Gpu) -> RunPlan:
        """Return a function that runs a plan. `entries` of the tuned table are the best plans known so far."""

    @abstractmethod
    def exact(self, site: NormSite, its: Any) -> list[Tensor]:
        """Return what every plan should find for these operands, float64."""

    def trial(self, device: torch.device, entries: Mapping[str, Any], gpu: Gpu) -> Trial:
        number = operand_sets(self.moved_bytes // self.times, device)
        sets = [[self.operands(site, device, gpu) for _ in range(number)] for site in self.sites]
        exact = [x for site, its in zip(self.sites, sets, strict=True) for x in self.exact(site, its[0])]
        return Trial(self.sites, sets, self.runner(entries, gpu), exact)

    def run_once(self, plan: Plan, device: torch.device, gpu: Gpu) -> None:
        """Launch what a trial of the plan launches, each variant of a kernel once."""
        run = self.runner({}, gpu)
        for site in self.sites:
            run(plan, site, self.operands(site, device, gpu))


@contextmanager
def _forcing(plan: Plan) -> Iterator[None]:
    with nullcontext() if plan is None else launch.forcing(plan):
        yield


# --- the fused norm --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NormTask(TuningTask):
    """Describes the sites of the fused norm that share a key."""

    direction: Direction

    @property
    def key(self) -> str:
        return launch.norm_key(self.direction, self.shape, self.pad, self.dtype)

    @property
    def moved_bytes(self) -> int:
        work = WORKLOADS[self.direction]
        return sum(site.times * work(site, self.batch, self.dtype).moved_bytes for site in self.sites)

    def plans(self, gpu: Gpu) -> Sequence[Plan]:
        return norm_candidates(self.direction, self.shape, self.pad, self.dtype, gpu)

    def operands(self, site: NormSite, device: torch.device, gpu: Gpu) -> tuple[Operands, Tensor]:
        """Return operands and the statistics, which backward reads."""
        made = site.operands(self.batch, self.dtype, str(device))
        with _forcing(launch.two_phase_rule("forward", self.shape, self.pad, self.dtype, gpu)):
            return made, run_forward(site, made)[1]

    def runner(self, entries: Mapping[str, Any], gpu: Gpu) -> RunPlan:
        return _run_forward if self.direction == "forward" else _run_backward

    def exact(self, site: NormSite, its: tuple[Operands, Tensor]) -> list[Tensor]:
        return exact_results(self.direction, site, its[0])


def _run_forward(plan: Plan, site: NormSite, its: tuple[Operands, Tensor]) -> list[Tensor]:
    with _forcing(plan):
        return [run_forward(site, its[0])[0]]


def _run_backward(plan: Plan, site: NormSite, its: tuple[Operands, Tensor]) -> list[Tensor]:
    with _forcing(plan):
        gradients = run_backward(site, *its)
    return [x for x in (gradients.dx, gradients.d_residual, gradients.remade) if x is not None]


def exact_results(direction: Direction, site: NormSite, operands: Operands) -> list[Tensor]:
    """Return y, or dx and what else backward writes there, in float64 from the same rounded operands.

    It is computed image by image: a batch in float64 may not fit beside what autograd keeps of it.
    """
    by_image = [plain_results(direction, site, _image(operands, number)) for number in range(operands.x.size(0))]
    return [torch.cat(images) for images in zip(*by_image, strict=True)]


def _image(operands: Operands, number: int) -> Operands:
    def wide(x: Tensor) -> Tensor:
        return x[number : number + 1].double().contiguous()

    residual, skip = (None if x is None else wide(x) for x in (operands.residual, operands.skip))
    return Operands(wide(operands.x), residual, wide(operands.dy), skip)


# --- convolution and norm --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConvTask(TuningTask):
    """Describes the residual blocks' convolutions, each with its site's norm behind it; the library's is built in."""

    @property
    def key(self) -> str:
        return launch.conv_key(self.shape, self.shape[1], self.dtype)

    @property
    def moved_bytes(self) -> int:
        """Return the bytes of a padded x and the weight, which are read, and of the norm's result, which is written."""
        batch, channels, side, _ = self.shape
        read = batch * channels * (side + 2) ** 2 + 9 * channels**2
        written = sum(site.times * batch * channels * (side + 2 * site.pad) ** 2 for site in self.sites)
        return (self.times * read + written) * self.dtype.itemsize

    @property
    def operations(self) -> int:
        batch, channels, side, _ = self.shape
        return self.times * 2 * batch * side**2 * 9 * channels**2

    @property
    def plausible_error(self) -> float:
        """Return the error that no right plan exceeds; float32 may be multiplied as TF32, which rounds like float16."""
        return max(ALLOWED[self.dtype], ALLOWED[torch.float16])

    def plans(self, gpu: Gpu) -> Sequence[Plan]:
        return [None, *conv_candidates(self.shape, self.shape[1], self.dtype, gpu)]

    def operands(self, site: NormSite, device: torch.device, gpu: Gpu) -> tuple[Tensor, ...]:
        """Return a padded x and a weight."""
        return _random_convolution(self.shape, self.dtype, device)

    def runner(self, entries: Mapping[str, Any], gpu: Gpu) -> RunPlan:
        def norm_plan(site: NormSite) -> NormPlan:
            return launch.tuned_norm_plan(entries, "forward", self.shape, site.pad, self.dtype, gpu)

        def run(plan: Plan, site: NormSite, its: tuple[Tensor, ...]) -> list[Tensor]:
            with _forcing(norms[site]), _forcing(plan):
                return [_convolve_and_normalise(plan, site, *its)]

        norms = {site: norm_plan(site) for site in self.sites}
        return run

    def exact(self, site: NormSite, its: tuple[Tensor, ...]) -> list[Tensor]:
        return [_exact_convolution(site, *its)]


def _random_convolution(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a padded x [N, C, H + 2, W + 2] and a weight [C, C, 3, 3] that keeps x's size."""
    batch, channels, height, width = shape
    padded = torch.randn((batch, channels, height + 2, width + 2), dtype=dtype, device=device)
    weight = torch.randn((channels, channels, 3, 3), dtype=dtype, device=device) * (9 * channels) ** -0.5
    return padded.contiguous(memory_format=torch.channels_last), weight.contiguous(memory_format=torch.channels_last)


def _convolve_and_normalise(plan: Plan, site: NormSite, padded: Tensor, weight: Tensor) -> Tensor:
    """Convolve and normalise as `kernels.residual_block` does: ours hands partials to the norm, the library none."""
    partials: Tensor | None = None
    if plan is None:
        y = F.conv2d(padded, weight)
    else:
        y, partials = conv_forward(padded, weight, reflect=False)
    return norm_forward(
        y,
        activation=site.activation,
        negative_slope=0.2,
        residual=padded[:, :, 1:-1, 1:-1] if site.residual else None,
        pad=site.pad,
        eps=1e-5,
        partials=partials,
    )[0]


def _exact_convolution(site: NormSite, padded: Tensor, weight: Tensor) -> Tensor:
    images = []
    for number in range(padded.size(0)):
        image = padded[number : number + 1].double().contiguous()
        y = F.conv2d(image, weight.double().contiguous())
        residual = image[:, :, 1:-1, 1:-1] if site.residual else None
        images.append(plain_forward(site, Operands(y, residual, y, None))[1])
    return torch.cat(images)


# --- gradients of convolutions by their inputs -----------------------------------------------------------------------


@dataclass(frozen=True)
class EdgeTask(ConvTask):
    """Describes the gradients of blocks' convolutions by what their norms wrote, each with the norm's backward pass.

    The library's gradient has a frame, which the norm folds; without one, this package adds the edges.
    """

    @property
    def key(self) -> str:
        return launch.edge_key(self.shape, self.shape[1], self.dtype)

    @property
    def moved_bytes(self) -> int:
        """Return the bytes of dy, the weight and what the norm had normalised, read, and of its gradient, written."""
        batch, channels, side, _ = self.shape
        return self.times * (3 * batch * channels * side**2 + 9 * channels**2) * self.dtype.itemsize

    def plans(self, gpu: Gpu) -> Sequence[Plan]:
        return [None, *edge_candidates(self.shape, self.dtype)]

    def operands(self, site: NormSite, device: torch.device, gpu: Gpu) -> tuple[Tensor, ...]:
        """Return dy, a weight, what the norm had normalised, and its statistics."""
        padded, weight = _random_convolution(self.shape, self.dtype, device)
        dy, x = (torch.randn_like(padded[:, :, 1:-1, 1:-1].contiguous(memory_format=torch.channels_last)) for _ in "ab")
        with _forcing(launch.two_phase_rule("forward", self.shape, 1, self.dtype, gpu)):
            norm = norm_forward(x, activation="relu", negative_slope=0.0, residual=None, pad=1, eps=1e-5, partials=None)
        return dy, weight, x, norm[1]

    def runner(self, entries: Mapping[str, Any], gpu: Gpu) -> RunPlan:
        def run(plan: Plan, site: NormSite, its: tuple[Tensor, ...]) -> list[Tensor]:
            folds = plan is not None
            norm = launch.tuned_norm_plan(entries, "backward", self.shape, int(not folds), self.dtype, gpu)
            dy, weight, x, statistics = its
            with _forcing(norm), _forcing(plan):
                gradient = input_gradient(dy, F.pad(x, (1, 1, 1, 1)) if not folds else x, weight, x, folds=folds)
                return [norm_backward(gradient, x, statistics, activation="relu", negative_slope=0.0, pad=1).dx]

        return run

    def exact(self, site: NormSite, its: tuple[Tensor, ...]) -> list[Tensor]:
        dy, weight, x, _ = (tensor.double() for tensor in its)
        images = []
        for number in range(x.size(0)):
            image = x[number : number + 1].requires_grad_()
            middle = F.pad(F.relu(F.instance_norm(image)), (1, 1, 1, 1), mode="reflect")
            images.append(torch.autograd.grad(F.conv2d(middle, weight), image, dy[number : number + 1])[0])
        return [torch.cat(images)]


# --- convolutions from and to an image -------------------------------------------------------------------------------

_THIN, _KERNEL = 3, 7


@dataclass(frozen=True)
class ThinTask(TuningTask):
    """Describes the convolution beside one norm, from or to an image, in the passes that our kernels compute.

    These are the result and its tanh with the gradient of the weights, or both gradients; the library's are built in.
    """

    @property
    def is_to_thin(self) -> bool:
        return self.sites[0].thin_convolution == "conv2d_to_thin"

    @property
    def _weight_shape(self) -> tuple[int, int, int, int]:
        wide = self.shape[1]
        return (_THIN, wide, _KERNEL, _KERNEL) if self.is_to_thin else (wide, _THIN, _KERNEL, _KERNEL)

    @property
    def key(self) -> str:
        batch, _, height, width = self.shape
        weight = self._weight_shape
        return launch.thin_key(self.sites[0].thin_convolution, (batch, weight[0], height, width), weight, self.dtype)

    @property
    def moved_bytes(self) -> int:
        """Return the bytes of both sides and of the weight, in each of the two passes."""
        batch, wide, height, width = self.shape
        padded = batch * (height + _KERNEL - 1) * (width + _KERNEL - 1)
        inner = batch * height * width
        sides = padded * wide + inner * _THIN if self.is_to_thin else padded * _THIN + inner * wide
        return 2 * (sides + wide * _THIN * _KERNEL**2) * self.dtype.itemsize

    @property
    def operations(self) -> int:
        batch, wide, height, width = self.shape
        return 2 * 2 * batch * height * width * wide * _THIN * _KERNEL**2

    def plans(self, gpu: Gpu) -> Sequence[Plan]:
        return [None, *thin_candidates(gpu)]

    def operands(self, site: NormSite, device: torch.device, gpu: Gpu) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return a padded x, a weight, a bias, and the gradient of the result in front of the tanh."""
        batch, _, height, width = self.shape
        outputs, inputs, kernel, _ = self._weight_shape

        def lying(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=self.dtype, device=device).contiguous(memory_format=torch.channels_last)

        x, dy = lying(batch, inputs, height + kernel - 1, width + kernel - 1), lying(batch, outputs, height, width)
        weight = lying(outputs, inputs, kernel, kernel) * (inputs * kernel**2) ** -0.5
        return x, weight, torch.randn(outputs, dtype=self.dtype, device=device), dy

    def runner(self, entries: Mapping[str, Any], gpu: Gpu) -> RunPlan:
        def run(plan: Plan, site: NormSite, its: tuple[Tensor, Tensor, Tensor, Tensor]) -> list[Tensor]:
            if plan is None:
                return self._by_library(*its)
            x, weight, bias, dy = its
            with _forcing(plan):
                if self.is_to_thin:
                    return [thin.launch_to_thin(x, weight, bias, 1, True), thin.launch_to_thin_wgrad(dy, x, _KERNEL, 1)]
                return [thin.launch_from_thin_dgrad(dy, weight, 1), thin.launch_from_thin_wgrad(dy, x, _KERNEL, 1)]

        return run

    def _by_library(self, x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> list[Tensor]:
        one, zero, wants_dx = [1, 1], [0, 0], not self.is_to_thin
        dx, dw, _ = torch.ops.aten.convolution_backward(
            dy, x, weight, None, one, zero, one, False, zero, 1, [wants_dx, True, False]
        )
        return [dx, dw] if wants_dx else [torch.tanh(F.conv2d(x, weight, bias)), dw]

    def exact(self, site: NormSite, its: tuple[Tensor, Tensor, Tensor, Tensor]) -> list[Tensor]:
        x, weight, bias, dy = its
        of_images = []
        for at in range(len(x)):
            image, gradient = (t[at : at + 1].double().contiguous() for t in (x, dy))
            of_images.append(self._by_library(image, weight.double().contiguous(), bias.double(), gradient))
        images, gradients = zip(*of_images, strict=True)
        return [torch.cat(images), torch.stack(gradients).sum(0)]


# --- all of them -----------------------------------------------------------------------------------------------------


def batches_of_a_step(batch: int) -> tuple[int, int]:
    """Return how many images the networks are given at once in a step of `batch` images of each domain.

    A generator translates the images of its source together with those that it should leave as they are, and its
    partner the translations alone; a discriminator judges translations alone, and real images together with generated
    ones. So each network runs twice a step on either number, forward and backward.
    """
    return 2 * batch, batch


def tasks(
    sites: Sequence[NormSite], dtypes: Sequence[torch.dtype], batches: Sequence[Sequence[int]]
) -> Iterator[TuningTask]:
    """Yield each key once, in such an order that a run cut short has done the most important ones.

    The order is by dtype, bfloat16 first, and by the groups of `batches`, for example those of one step. Among these,
    keys that move more bytes in a pass of the network come first, and convolutions last: by then their norms are tuned.
    """
    blocks = tuple(site for site in sites if site.remade or site.residual)
    seen: set[str] = set()
    for dtype in sorted(dtypes, key=TUNED_DTYPES.index):
        for group in batches:
            norms = [task for batch in group for task in _norm_tasks(sites, dtype, batch)]
            convolutions: list[TuningTask] = [
                kind(blocks, batch, dtype) for kind in (ConvTask, EdgeTask) for batch in group if blocks
            ]
            if dtype != torch.float32:
                convolutions += [ThinTask((s,), batch, dtype) for batch in group for s in sites if s.thin_convolution]
            by_bytes = sorted(norms, key=lambda task: -task.moved_bytes)
            for task in (*by_bytes, *sorted(convolutions, key=lambda task: -task.moved_bytes)):
                if task.key not in seen:
                    seen.add(task.key)
                    yield task


def _norm_tasks(sites: Sequence[NormSite], dtype: torch.dtype, batch: int) -> list[NormTask]:
    by_key: dict[str, NormTask] = {}
    for direction in get_args(Direction):
        for site in sites:
            task = NormTask((site,), batch, dtype, direction)
            if known := by_key.get(task.key):
                task = dataclasses.replace(known, sites=(*known.sites, site))
            by_key[task.key] = task
    return list(by_key.values())
