"""The generator and the discriminator, forward and with all gradients, against the original's modules."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from bench import counts
from bench.compiled import compiled, forget_compiled, modes
from bench.contest import Case, Contest
from bench.plain_cyclegan import Discriminator, Generator
from bench.timing import Call, Contender, on_recording_stream
from cyclegan_fast.device import memory_format, name_of
from cyclegan_fast.networks import PatchDiscriminator, ResnetGenerator
from cyclegan_fast.original_names import from_original
from kernels import Impl

Kind = Literal["generator", "discriminator"]
Pass = Literal["forward", "forward and backward"]

PLAIN = "plain PyTorch"
ALLOWED = {torch.float32: 2e-2, torch.float16: 5e-2, torch.bfloat16: 0.4}
"""Gradients pass through 24 layers with random weights: plain PyTorch in bfloat16 loses 0.24 of their size on the way,
and what is wrong is off by 1 and more. Float32 is TF32 on a GPU."""
ORIGINALS: dict[Kind, type[Generator] | type[Discriminator]] = {"generator": Generator, "discriminator": Discriminator}


def cases(
    kinds: Iterable[Kind],
    passes: Iterable[Pass],
    dtypes: Iterable[torch.dtype],
    batches: Iterable[int],
    side: int,
    device: torch.device,
    *,
    with_compile: bool = True,
    impl: Impl = "auto",
) -> Iterator[Case]:
    """A case for each network, pass, dtype and batch, on images of `side` pixels."""
    for batch in batches:
        for dtype in dtypes:
            for kind in kinds:
                for what in passes:
                    work = counts.network(ORIGINALS[kind], batch, side, dtype, backward=what != "forward")
                    yield Case(
                        subject="networks",
                        case=f"{kind}, {what}",
                        shape=f"{batch}x3x{side}x{side}",
                        dtype=name_of(dtype),
                        batch=batch,
                        side=side,
                        moved_bytes=work.moved_bytes,
                        operations=work.operations,
                        make=partial(contest, kind, what, dtype, batch, side, device, with_compile, impl),
                    )


def contest(
    kind: Kind,
    what: Pass,
    dtype: torch.dtype,
    batch: int,
    side: int,
    device: torch.device,
    with_compile: bool,
    impl: Impl,
) -> Contest:
    forget_compiled()
    entrants = Entrants(kind, what, dtype, batch, side, device, impl)
    last = torch.channels_last
    with on_recording_stream(device):
        contenders = {
            PLAIN: Contender([entrants.plain(dtype)]),
            f"{PLAIN}, channels last": Contender([entrants.plain(dtype, last)]),
            "ours": Contender([entrants.ours()], graph=True),
        }
        if device.type == "cuda":
            contenders[f"{PLAIN}, channels last, CUDA graph"] = Contender([entrants.plain(dtype, last)], graph=True)
            contenders["ours, launched one by one"] = Contender([entrants.ours()])
        for mode in modes(device, recorded=False) if with_compile else ():
            contenders[f"torch.compile {mode}"] = Contender([entrants.plain(dtype, last, mode)])
        exact = entrants.exact()
    return Contest(contenders, ours="ours", plain=PLAIN, exact=exact, allowed=ALLOWED[dtype])


class Entrants:
    """One network's passes with the same weights and images, rounded to `dtype` before they are handed out."""

    def __init__(
        self,
        kind: Kind,
        what: Pass,
        dtype: torch.dtype,
        batch: int,
        side: int,
        device: torch.device,
        impl: Impl = "auto",
    ) -> None:
        torch.manual_seed(0)
        self.kind, self.what, self.dtype, self.device, self.impl = kind, what, dtype, device, impl
        self.weights = {name: w.to(dtype).double() for name, w in ORIGINALS[kind]().state_dict().items()}
        self.image = torch.rand(batch, 3, side, side).mul_(2).sub_(1).to(dtype).double()

    def plain(
        self, to: torch.dtype, layout: torch.memory_format = torch.contiguous_format, mode: str | None = None
    ) -> Call:
        """The original's modules."""
        network = ORIGINALS[self.kind]()
        network.load_state_dict(self.weights)
        network.to(self.device, to, memory_format=layout)  # type: ignore[call-overload]  # absent from torch's stubs
        function: Callable[[Tensor], Tensor] = compiled(network, mode) if mode else network
        return _call(function, network, self.image.to(self.device, to, memory_format=layout), self.what)

    def ours(self) -> Call:
        network: nn.Module = (
            ResnetGenerator(impl=self.impl) if self.kind == "generator" else PatchDiscriminator(impl=self.impl)
        )
        network.load_state_dict(from_original(self.weights))
        # Forward alone is how images are translated, which is channels last everywhere; training decides by device.
        layout = torch.channels_last if self.what == "forward" else memory_format(self.device, self.dtype)
        network.to(self.device, self.dtype, memory_format=layout)  # type: ignore[call-overload]  # as above
        return _call(network, network, self.image.to(self.device, self.dtype, memory_format=layout), self.what)

    def exact(self) -> list[Tensor]:
        found: list[Tensor] = self.plain(torch.float64)()
        return found


def _call(function: Callable[[Tensor], Tensor], network: nn.Module, image: Tensor, what: Pass) -> Call:
    """A pass that returns its result and, backward, the gradients of the image and of every convolution's weight."""
    if what == "forward":

        def forward() -> list[Tensor]:
            with torch.no_grad():
                return [function(image)]

        return forward
    image.requires_grad_()
    wanted = [image, *(parameter for parameter in network.parameters() if parameter.dim() == 4)]

    def forward_and_backward() -> list[Tensor]:
        result = function(image)
        return [result.detach(), *torch.autograd.grad(result.float().square().mean(), wanted)]

    return forward_and_backward
