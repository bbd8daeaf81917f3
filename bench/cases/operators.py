"""The fused norms, forward and backward, at every site of both networks, against PyTorch's operators."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import get_args

import torch
from torch import Tensor

from bench.measure import counts
from bench.measure.agreement import ALLOWED
from bench.measure.compiled import backward_may_repeat, compiled, forget_compiled, modes
from bench.measure.contest import Case, Contest
from bench.measure.timing import Call, Contender, on_recording_stream
from cyclegan_fast.system.device import name_of
from kernels import Impl, instance_norm, reflection_pad
from kernels.dispatch import choose
from kernels.plans import NormPass as Direction
from kernels.sites import NormSite, Operands, run_backward, run_forward
from kernels.traffic import plain_forward

PLAIN = "plain PyTorch"
CPU_CACHE_BYTES = 64 << 20  # taken to be a CPU's last-level cache
MOST_SETS = 8

WORK = {"forward": counts.norm_forward, "backward": counts.norm_backward}
Forward = Callable[[NormSite, Operands], tuple[Tensor, Tensor]]
"""y, and y padded"""


def cases(
    sites: Sequence[NormSite],
    dtypes: Iterable[torch.dtype],
    batches: Iterable[int],
    device: torch.device,
    image_side: int,
    *,
    impl: Impl = "auto",
    with_compile: bool = True,
) -> Iterator[Case]:
    """A case for each site, dtype, batch and direction.

    Args:
        sites: from `kernels.sites`, for images of `image_side` pixels.
        device: that computes; contenders are recorded as CUDA graphs where it is a GPU.
        impl: of ours; "triton" on a CPU is the interpreter.
    """
    for batch in batches:
        for dtype in dtypes:
            for site in sites:
                for direction in get_args(Direction):
                    needed = WORK[direction](site, batch, dtype)
                    yield Case(
                        subject="operators",
                        case=f"{site.name}, {direction}",
                        shape="x".join(map(str, site.shape(batch))),
                        dtype=name_of(dtype),
                        batch=batch,
                        side=image_side,
                        moved_bytes=needed.moved_bytes,
                        operations=needed.operations,
                        make=partial(contest, site, direction, dtype, batch, device, impl, with_compile=with_compile),
                    )


def contest(
    site: NormSite,
    direction: Direction,
    dtype: torch.dtype,
    batch: int,
    device: torch.device,
    impl: Impl,
    *,
    with_compile: bool,
) -> Contest:
    forget_compiled()
    torch.manual_seed(0)
    moved_bytes = WORK[direction](site, batch, dtype).moved_bytes
    sets = [site.operands(batch, dtype, str(device)) for _ in range(operand_sets(moved_bytes, device))]
    # Channels first for the original's layout.
    first = [_in_layout(operands, torch.contiguous_format) for operands in sets]
    ways: dict[str, tuple[Forward, list[Operands]]] = {
        PLAIN: (plain_forward, first),
        f"{PLAIN}, channels last": (plain_forward, sets),
    }
    for mode in modes(device, recorded=True) if with_compile else ():
        ways[f"torch.compile {mode}"] = (compiled(plain_forward, mode), sets)
    calls: dict[str, list[Call]] = {}
    with on_recording_stream(device):
        for way, (forward, operands) in ways.items():
            calls[way] = [_call(direction, site, forward, each) for each in operands]
        calls["ours"] = [_our_call(direction, site, each, impl) for each in sets]
        exact = _call(direction, site, plain_forward, _in_layout(_wide(sets[0]), torch.contiguous_format))()
    return Contest(
        contenders={way: Contender(each, graph=True) for way, each in calls.items()},
        ours="ours",
        plain=PLAIN,
        exact=exact,
        allowed=ALLOWED[dtype],
    )


def operand_sets(moved_bytes: int, device: torch.device) -> int:
    """How many sets of operands a contender goes through.

    Those of a large site would not stay in the cache between two convolutions, and do not here: twice the cache's size
    goes by before a set comes up again. Those of a small one would, and do.
    """
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else CPU_CACHE_BYTES
    return 1 if moved_bytes < cache / 4 else min(MOST_SETS, 1 + -(-2 * cache // moved_bytes))


def _call(direction: Direction, site: NormSite, forward: Forward, operands: Operands) -> Call:
    """A pass of PyTorch's operators; backward is by autograd, from a forward pass that is kept."""
    if direction == "forward":

        def run_forward_pass() -> list[Tensor]:
            with torch.no_grad():
                return [forward(site, operands)[1]]

        return run_forward_pass
    inputs = [x.detach().requires_grad_() for x in (operands.x, operands.residual) if x is not None]
    leaves = replace(operands, x=inputs[0], residual=inputs[1] if site.residual else None)
    # Without a pad the residual's gradient is dY as it is, for everybody.
    wanted = inputs if site.pad else inputs[:1]

    @cache
    def forward_pass() -> tuple[list[Tensor], list[Tensor]]:
        """Outputs and their gradients; with the first call, where what does not compile is caught."""
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
    """What the networks launch: on a GPU the kernels, elsewhere the public operators."""
    if choose("instance_norm", impl, operands.x) == "reference":
        return _call(direction, site, partial(_our_reference, impl=impl), operands)
    if direction == "forward":
        return lambda: [run_forward(site, operands)[0]]
    _, statistics = run_forward(site, operands)

    def run_backward_pass() -> list[Tensor]:
        gradients = run_backward(site, operands, statistics)
        return [gradients.dx] if gradients.d_residual is None or not site.pad else [gradients.dx, gradients.d_residual]

    return run_backward_pass


def _our_reference(site: NormSite, operands: Operands, impl: Impl) -> tuple[Tensor, Tensor]:
    # Plain operators pad where a convolution reads, as `networks.ResnetGenerator` has them do.
    y = instance_norm(operands.x, activation=site.activation, residual=operands.residual, impl=impl)
    return y, reflection_pad(y, site.pad, impl=impl) if site.pad else y


def _in_layout(operands: Operands, layout: torch.memory_format) -> Operands:
    return _mapped(operands, lambda x: x.contiguous(memory_format=layout))


def _wide(operands: Operands) -> Operands:
    return _mapped(operands, lambda x: x.double())


def _mapped(operands: Operands, function: Callable[[Tensor], Tensor]) -> Operands:
    residual, skip = (None if x is None else function(x) for x in (operands.residual, operands.skip))
    return Operands(function(operands.x), residual, function(operands.dy), skip)
