"""Measures the generator and the discriminator, forward and with all gradients, against the original's modules."""

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from bench.cases import counts
from bench.cases.plain_cyclegan import PAPER_SIZE, PLAIN_PYTORCH, PlainDiscriminator, PlainGenerator, PlainNetworkSize
from bench.measure.compiled import compiled_by_torch, forget_compiled, modes
from bench.measure.contest import Case, Contest
from bench.measure.timing import Call, Contender, on_recording_stream
from cyclegan_fast.checkpoint.original import from_original
from cyclegan_fast.kernels import Impl
from cyclegan_fast.networks.patchgan import PatchDiscriminator
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.device import memory_format

Kind = Literal["generator", "discriminator"]
Pass = Literal["forward", "forward and backward"]

ALLOWED_BACKWARD = {torch.float32: 0.2, torch.float16: 0.2, torch.bfloat16: 0.4}
"""The largest error of gradients, relative to their size. They pass through 24 layers with random weights: plain
PyTorch loses 0.24 of their size on the way in bfloat16, and 0.08 in float16, whose mantissa TF32 has too, in which a
GPU convolves float32. A wrong one is off by 1."""
ORIGINALS: dict[Kind, type[PlainGenerator] | type[PlainDiscriminator]] = {
    "generator": PlainGenerator,
    "discriminator": PlainDiscriminator,
}


def network_cases(
    kinds: Iterable[Kind],
    passes: Iterable[Pass],
    dtypes: Iterable[torch.dtype],
    batches: Iterable[int],
    side: int,
    device: torch.device,
    *,
    with_compile: bool = True,
    impl: Impl = "auto",
    size: PlainNetworkSize = PAPER_SIZE,
) -> Iterator[Case]:
    """Yield a case for each network, pass, dtype and batch, on images of `side` pixels."""
    for batch in batches:
        for dtype in dtypes:
            for kind in kinds:
                for what in passes:
                    backward = what != "forward"
                    work = counts.network_workload(ORIGINALS[kind], batch, side, dtype, backward=backward, size=size)
                    entrants = partial(Entrants, kind, what, dtype, batch, side, device, impl, size)
                    make = partial(_contest, entrants, with_compile)
                    yield Case.of_images("networks", f"{kind}, {what}", batch, side, dtype, work, make)


class EntrantsOfNetwork(Protocol):
    """Makes passes of one network, as plain PyTorch runs it and as ours, on the same weights and images."""

    dtype: torch.dtype
    device: torch.device

    def plain(
        self, to: torch.dtype, layout: torch.memory_format = torch.contiguous_format, mode: str | None = None
    ) -> Call: ...

    def ours(self) -> Call: ...


def network_contenders(entrants: EntrantsOfNetwork, with_compile: bool) -> dict[str, Contender]:
    """Return a network's contenders by name; call it where CUDA graphs are recorded.

    Args:
        with_compile: whether torch.compile takes part, in each of its modes.
    """
    dtype, device, last = entrants.dtype, entrants.device, torch.channels_last
    contenders = {
        PLAIN_PYTORCH: Contender([entrants.plain(dtype)]),
        f"{PLAIN_PYTORCH}, channels last": Contender([entrants.plain(dtype, last)]),
        "ours": Contender([entrants.ours()], graph=True),
    }
    if device.type == "cuda":
        plain_in_graph = Contender([entrants.plain(dtype, last)], graph=True)
        contenders[f"{PLAIN_PYTORCH}, channels last, CUDA graph"] = plain_in_graph
        contenders["ours, launched one by one"] = Contender([entrants.ours()])
    for mode in modes(device, recorded=False) if with_compile else ():
        contenders[f"torch.compile {mode}"] = Contender([entrants.plain(dtype, last, mode)])
    return contenders


def _contest(make_entrants: "Callable[[], Entrants]", with_compile: bool) -> Contest:
    forget_compiled()
    entrants = make_entrants()
    with on_recording_stream(entrants.device):
        contenders = network_contenders(entrants, with_compile)
        exact = entrants.exact()
    bound = allowed(entrants.what, entrants.dtype, entrants.device)
    return Contest(contenders, ours="ours", plain=PLAIN_PYTORCH, exact=exact, allowed=bound)


def allowed(what: Pass, dtype: torch.dtype, device: torch.device) -> float:
    """Return how far a result may be off, relative to its size."""
    if what == "forward":
        # Without its last block a generator is off by 0.37, without a ReLU by 0.2; float32 is TF32 on a GPU.
        in_float32 = 2e-2 if device.type == "cuda" else 1e-4
        return {torch.float32: in_float32, torch.float16: 2e-2, torch.bfloat16: 0.1}[dtype]
    return ALLOWED_BACKWARD[dtype]


class Entrants:
    """Makes the contenders of one network: all have the same weights and images, which were rounded to `dtype`."""

    def __init__(
        self,
        kind: Kind,
        what: Pass,
        dtype: torch.dtype,
        batch: int,
        side: int,
        device: torch.device,
        impl: Impl = "auto",
        size: PlainNetworkSize = PAPER_SIZE,
    ) -> None:
        torch.manual_seed(0)
        self.size = size
        self.kind, self.what, self.dtype, self.device, self.impl = kind, what, dtype, device, impl
        self.weights = {name: w.to(dtype).double() for name, w in size.network(ORIGINALS[kind]).state_dict().items()}
        self.image = torch.rand(batch, 3, side, side).mul_(2).sub_(1).to(dtype).double()

    def plain(
        self, to: torch.dtype, layout: torch.memory_format = torch.contiguous_format, mode: str | None = None
    ) -> Call:
        """Return a pass of the original's modules in the dtype `to`."""
        network = self.size.network(ORIGINALS[self.kind])
        network.load_state_dict(self.weights)
        network.to(self.device, to, memory_format=layout)  # type: ignore[call-overload]  # absent from torch's stubs
        function: Callable[[Tensor], Tensor] = compiled_by_torch(network, mode) if mode else network
        return _call(function, network, self.image.to(self.device, to, memory_format=layout), self.what)

    def ours(self) -> Call:
        """Return a pass of our network in `dtype`."""
        network: nn.Module = (
            ResnetGenerator(width=self.size.width, blocks=self.size.blocks, impl=self.impl)
            if self.kind == "generator"
            else PatchDiscriminator(width=self.size.width, impl=self.impl)
        )
        network.load_state_dict(from_original(self.weights))
        # A forward pass alone is a translation, which is channels last everywhere; training decides by device.
        layout = torch.channels_last if self.what == "forward" else memory_format(self.device, self.dtype)
        network.to(self.device, self.dtype, memory_format=layout)  # type: ignore[call-overload]  # as above
        return _call(network, network, self.image.to(self.device, self.dtype, memory_format=layout), self.what)

    def exact(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        """Return the result in that precision, computed image by image.

        A whole batch in float64 needs more memory than the contenders do.
        """
        found: list[list[Tensor]] = []
        for image in torch.split(self.image, 1):
            alone = copy.copy(self)
            alone.image = image
            found.append(alone.plain(dtype)())
        # Results and gradients of images have a row for each image; gradients of weights are added up.
        per_image = 1 if self.what == "forward" else 2
        columns = list(zip(*found, strict=True))
        added = [torch.stack(column).sum(0) for column in columns[per_image:]]
        return [torch.cat(column) for column in columns[:per_image]] + added


def _call(function: Callable[[Tensor], Tensor], network: nn.Module, image: Tensor, what: Pass) -> Call:
    """Return a pass that gives its result and, backward, the gradients of the image and of convolutions' weights."""
    if what == "forward":

        def forward() -> list[Tensor]:
            with torch.no_grad():
                return [function(image)]

        return forward
    image.requires_grad_()
    wanted = [image, *(parameter for parameter in network.parameters() if parameter.dim() == 4)]

    def forward_and_backward() -> list[Tensor]:
        result = function(image)
        # The loss is a sum over images, none of which depends on another; float16 would lose the gradients of a mean.
        return [result.detach(), *torch.autograd.grad(result.square().sum(), wanted)]

    return forward_and_backward
