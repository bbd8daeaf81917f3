"""Measures networks of other projects as they were written, and accelerated."""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.cases import counts
from bench.cases.networks import Pass, allowed, network_contenders
from bench.cases.others import OtherNetwork
from bench.cases.plain_cyclegan import PLAIN_PYTORCH
from bench.measure.agreement import errors
from bench.measure.compiled import compiled_by_torch, forget_compiled
from bench.measure.contest import Case, Contest
from bench.measure.timing import Call, on_recording_stream
from cyclegan_fast.kernels import Impl, accelerate

OTHER_ROUNDING = 1.5
"""Bounds the error of a result that is rounded elsewhere, in errors of plain PyTorch: a network may amplify it."""


def acceleration_cases(
    networks: Iterable[OtherNetwork],
    passes: Iterable[Pass],
    dtypes: Iterable[torch.dtype],
    batches: Iterable[int],
    device: torch.device,
    *,
    with_compile: bool = True,
    impl: Impl = "auto",
) -> Iterator[Case]:
    """Yield a case for each network, pass, dtype and batch."""
    for batch in batches:
        for dtype in dtypes:
            for network in networks:
                for what in passes:
                    work = counts.convolution_workload(
                        partial(network.make, network.width), batch, network.side, dtype, backward=what != "forward"
                    )
                    entrants = partial(OtherEntrants, network, what, dtype, batch, device, impl)
                    make = partial(_contest, entrants, with_compile)
                    title = f"{network.name}, {what}"
                    yield Case.of_images("accelerated networks", title, batch, network.side, dtype, work, make)


def _contest(make_entrants: "partial[OtherEntrants]", with_compile: bool) -> Contest:
    forget_compiled()
    entrants = make_entrants()
    with on_recording_stream(entrants.device):
        contenders = network_contenders(entrants, with_compile)
        exact = entrants.plain(torch.float64)()
        of_plain = errors({PLAIN_PYTORCH: contenders[PLAIN_PYTORCH].calls[0]()}, exact)[PLAIN_PYTORCH]
    bound = max(allowed(entrants.what, entrants.dtype, entrants.device), OTHER_ROUNDING * of_plain)
    return Contest(contenders, ours="ours", plain=PLAIN_PYTORCH, exact=exact, allowed=bound)


class OtherEntrants:
    """Makes the contenders of one network: all have the same weights and images, which were rounded to `dtype`."""

    def __init__(
        self,
        network: OtherNetwork,
        what: Pass,
        dtype: torch.dtype,
        batch: int,
        device: torch.device,
        impl: Impl = "auto",
    ) -> None:
        torch.manual_seed(0)
        self.what, self.dtype, self.device, self.impl = what, dtype, device, impl
        self.network = network.make(network.width).to(dtype).double()
        self.image = torch.rand(batch, 3, network.side, network.side).mul_(2).sub_(1).to(dtype).double()

    def plain(
        self, to: torch.dtype, layout: torch.memory_format = torch.contiguous_format, mode: str | None = None
    ) -> Call:
        """Return a pass of the network as it was written, in the dtype `to`."""
        network = self._copy(to, layout)
        return self._call(network, compiled_by_torch(network, mode) if mode else network, layout)

    def ours(self) -> Call:
        """Return a pass of the network accelerated, in `dtype`."""
        network = accelerate(self._copy(self.dtype, torch.contiguous_format), impl=self.impl, verbose=False)
        return self._call(network, network, torch.contiguous_format)

    def _copy(self, to: torch.dtype, layout: torch.memory_format) -> nn.Module:
        network = copy.deepcopy(self.network)
        return network.to(self.device, to, memory_format=layout)  # type: ignore[call-overload,no-any-return]  # absent from torch's stubs

    def _call(self, network: nn.Module, function: Callable[[Tensor], Any], layout: torch.memory_format) -> Call:
        """Return a pass that gives the results and, backward, the gradients of the image and of 4-D weights."""
        dtype = next(network.parameters()).dtype
        image = self.image.to(self.device, dtype).contiguous(memory_format=layout)
        if self.what == "forward":

            def forward() -> list[Tensor]:
                with torch.no_grad():
                    return tree_leaves(function(image))

            return forward
        image.requires_grad_()
        wanted = [image, *(parameter for parameter in network.parameters() if parameter.dim() == 4)]

        def forward_and_backward() -> list[Tensor]:
            results = tree_leaves(function(image))
            loss = torch.stack([result.square().sum() for result in results]).sum()
            return [*(result.detach() for result in results), *torch.autograd.grad(loss, wanted)]

        return forward_and_backward
