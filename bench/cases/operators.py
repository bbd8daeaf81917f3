"""Measures the fused norms, forward and backward, at every site of both networks, against PyTorch's operators."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import get_args

import torch
from torch import Tensor

from bench.cases import counts
from bench.cases.norm_opponents import NORM_OPPONENTS
from bench.cases.norm_opponents.opponent import NO_BACKWARD, failing_as_opponent
from bench.cases.plain_cyclegan import PLAIN_PYTORCH
from bench.measure.agreement import ALLOWED
from bench.measure.compiled import backward_may_repeat, compiled_by_torch, forget_compiled, modes
from bench.measure.contest import Case, Contest
from bench.measure.timing import Call, Contender, on_recording_stream
from cyclegan_fast.kernels import Impl, instance_norm, reflection_pad
from cyclegan_fast.kernels.checking.sites import NormSite, Operands, run_backward, run_forward
from cyclegan_fast.kernels.dispatch import choose
from cyclegan_fast.kernels.plans import NormPass as Direction
from cyclegan_fast.kernels.traffic import plain_forward
from cyclegan_fast.system.device import name_of

CPU_CACHE_BYTES = 64 << 20  # an assumption about a CPU's last-level cache
MOST_SETS = 8

WORKLOADS = {"forward": counts.norm_forward_workload, "backward": counts.norm_backward_workload}
_Forward = Callable[[NormSite, Operands], tuple[Tensor, Tensor]]
"""Computes y, and y padded."""


def operator_cases(
    sites: Sequence[NormSite],
    dtypes: Iterable[torch.dtype],
    batches: Iterable[int],
    device: torch.device,
    image_side: int,
    *,
    impl: Impl = "auto",
    with_compile: bool = True,
    with_others: bool = True,
) -> Iterator[Case]:
    """Yield a case for each site, dtype, batch and direction.

    Args:
        sites: Sites from `kernels.checking.sites`, for images of `image_side` pixels.
        dtypes: The precisions that are computed in.
        batches: The numbers of images that the networks are given at once.
        device: The device that computes; contenders are recorded as CUDA graphs where it is a GPU.
        image_side: The side of the images, pixels.
        impl: The implementation of ours; "triton" on a CPU is the interpreter.
        with_compile: Whether torch.compile takes part.
        with_others: Whether norms of other libraries take part, see `bench.cases.norm_opponents`.
    """
    make = partial(operator_contest, device=device, impl=impl, with_compile=with_compile, with_others=with_others)
    for batch in batches:
        for dtype in dtypes:
            for site in sites:
                for direction in get_args(Direction):
                    needed = WORKLOADS[direction](site, batch, dtype)
                    yield Case(
                        subject="operators",
                        case=f"{site.name}, {direction}",
                        shape="x".join(map(str, site.shape(batch))),
                        dtype=name_of(dtype),
                        batch=batch,
                        side=image_side,
                        moved_bytes=needed.moved_bytes,
                        operations=needed.operations,
                        make=partial(make, site, direction, dtype, batch),
                    )


def operator_contest(
    site: NormSite,
    direction: Direction,
    dtype: torch.dtype,
    batch: int,
    *,
    device: torch.device,
    impl: Impl,
    with_compile: bool,
    with_others: bool,
) -> Contest:
    forget_compiled()
    torch.manual_seed(0)
    moved_bytes = WORKLOADS[direction](site, batch, dtype).moved_bytes
    sets = [site.operands(batch, dtype, str(device)) for _ in range(operand_sets(moved_bytes, device))]
    # The original's layout is channels first.
    first = [_in_layout(operands, torch.contiguous_format) for operands in sets]
    ways: dict[str, tuple[_Forward, list[Operands]]] = {
        PLAIN_PYTORCH: (plain_forward, first),
        f"{PLAIN_PYTORCH}, channels last": (plain_forward, sets),
    }
    for mode in modes(device, recorded=True) if with_compile else ():
        ways[f"torch.compile {mode}"] = (compiled_by_torch(plain_forward, mode), sets)
    others = [make() for make in NORM_OPPONENTS] if with_others else []
    absent: dict[str, str] = {}
    for other in others:
        reason = other.absence(device) or (NO_BACKWARD if direction == "backward" and not other.has_backward else None)
        if reason is not None:
            absent[other.name] = reason
            continue
        # What is around the norm is PyTorch's.
        operands = first if other.layout == torch.contiguous_format else sets
        ways[other.name] = (partial(plain_forward, norm=other), operands)
    calls: dict[str, list[Call]] = {}
    with on_recording_stream(device):
        for way, (forward, operands) in ways.items():
            calls[way] = [_call(direction, site, forward, each) for each in operands]
        for name in [other.name for other in others if other.name in calls]:
            calls[name] = [failing_as_opponent(call) for call in calls[name]]
        calls["ours"] = [_our_call(direction, site, each, impl) for each in sets]
        exact = _call(direction, site, plain_forward, _in_layout(_wide(sets[0]), torch.contiguous_format))()
    return Contest(
        contenders={way: Contender(each, graph=True) for way, each in calls.items()},
        ours="ours",
        plain=PLAIN_PYTORCH,
        exact=exact,
        allowed=ALLOWED[dtype],
        absent=absent,
        in_one_thread=torch.get_num_threads() == 1,
    )


def operand_sets(moved_bytes: int, device: torch.device) -> int:
    """Return how many sets of operands a contender goes through.

    The operands of a large site would not stay in the cache between two convolutions, and do not here: twice the
    cache's size goes by before a set comes up again. Those of a small site would stay, and do.
    """
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else CPU_CACHE_BYTES
    return 1 if moved_bytes < cache / 4 else min(MOST_SETS, 1 + -(-2 * cache // moved_bytes))


def _call(direction: Direction, site: NormSite, forward: _Forward, operands: Operands) -> Call:
    """Return a pass of PyTorch's operators; backward is by autograd, from a forward pass that is kept."""
    if direction == "forward":

        def run_forward_pass() -> list[Tensor]:
            with torch.no_grad():
                return [forward(site, operands)[1]]

        return run_forward_pass
    inputs = [x.detach().requires_grad_() for x in (operands.x, operands.residual) if x is not None]
    leaves = replace(operands, x=inputs[0], residual=inputs[1] if site.residual else None)
    # Without a pad the residual's gradient is dY itself, so that nobody computes it.
    wanted = inputs if site.pad else inputs[:1]

    @cache
    def forward_pass() -> tuple[list[Tensor], list[Tensor]]:
        """Return outputs and their gradients; run by the first call, where code that does not compile is caught."""
        with backward_may_repeat():
            y, padded = forward(site, leaves)
        if operands.skip is None:
            return [padded], [operands.dy]
        return [padded, y], [operands.dy, operands.skip]

    def run_backward_pass() -> list[Tensor]:
        outputs, gradients = forward_pass()
        return list(torch.autograd.grad(outputs, wanted, gradients, retain_graph=True))

    return run_backward_pass


def _our_call(direction: Direction, site: NormSite, operands: Operands, impl: Impl) -> Call:
    """Return what the networks launch: on a GPU the kernels, elsewhere the public operators."""
    if choose("instance_norm", impl, operands.x) != "triton":
        return _call(direction, site, partial(_our_operators, impl=impl), operands)
    if direction == "forward":
        return lambda: [run_forward(site, operands)[0]]
    _, statistics = run_forward(site, operands)

    def run_backward_pass() -> list[Tensor]:
        gradients = run_backward(site, operands, statistics)
        return [gradients.dx] if gradients.d_residual is None or not site.pad else [gradients.dx, gradients.d_residual]

    return run_backward_pass


def _our_operators(site: NormSite, operands: Operands, impl: Impl) -> tuple[Tensor, Tensor]:
    # Off a GPU, what a block adds up as well as convolves is padded by itself, as `networks.ResnetGenerator` has it.
    pad = 0 if site.feeds_block else site.pad
    y = instance_norm(operands.x, activation=site.activation, residual=operands.residual, pad=pad, impl=impl)
    return y, reflection_pad(y, site.pad, impl=impl) if site.feeds_block and site.pad else y


def _in_layout(operands: Operands, layout: torch.memory_format) -> Operands:
    return _mapped(operands, lambda x: x.contiguous(memory_format=layout))


def _wide(operands: Operands) -> Operands:
    return _mapped(operands, lambda x: x.double())


def _mapped(operands: Operands, function: Callable[[Tensor], Tensor]) -> Operands:
    residual, skip = (None if x is None else function(x) for x in (operands.residual, operands.skip))
    return Operands(function(operands.x), residual, function(operands.dy), skip)
