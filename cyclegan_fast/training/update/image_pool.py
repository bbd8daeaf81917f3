"""Keeps the history of generated images that discriminators are trained on (Shrivastava et al. 2017, section 2.3).

The host decides by random numbers what happens to each image, before anything is computed; the device only gathers and
scatters by the indices that it is given. So a CUDA graph can hold the exchange.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.content import PoolState
from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.dispatch import choose
from cyclegan_fast.kernels.elementwise.image_exchange import image_exchange


class RandomSource(Protocol):
    """Makes the two kinds of draws that the pool needs; `random.Random` makes both."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...


class ImagePool:
    """Holds up to `size` generated images of any shapes and hands out old ones half of the time.

    Args:
        size: the number of images that are kept, 50 in the paper; 0 switches the pool off.
        random_source: draws the decisions, on the host.
    """

    def __init__(self, size: int, random_source: RandomSource) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        self.size = size
        self.random_source = random_source
        self.filled = 0
        self._images: list[Tensor] = []  # each [C, H, W]

    @property
    def images(self) -> list[Tensor]:
        """Return the images that are kept, each [C, H, W], in the order of the slots."""
        return self._images

    def query(self, images: Tensor) -> Tensor:
        """Exchange the newest images [N, C, H, W] for as many to train on, detached.

        While the pool fills, an image is stored and returned and no random number is drawn. Then, image by image, with
        probability 0.5 it takes the place of a uniformly drawn one, which is returned; otherwise it is returned itself
        and not stored. An image may so replace one that came earlier in the same batch.
        """
        return self.exchange(images, self.decide(len(images)).to(images.device))

    def decide(self, count: int) -> Tensor:
        """Draw what happens to the next `count` images: int64 [2, count] on the host.

        The first row says what each is exchanged for: slot s as s, image i of the same batch as size + i. The second
        row is the slot that each image is in at the end, or `size` for images that are in none.
        """
        content = {slot: slot for slot in range(self.filled)}  # in terms of the first row
        sources, writes = [], [self.size] * count
        for index in range(count):
            arriving = self.size + index
            if self.size == 0:
                sources.append(arriving)
            elif self.filled < self.size:
                sources.append(arriving)
                content[self.filled] = arriving
                self.filled += 1
            elif self.random_source.random() < 0.5:
                slot = self.random_source.randrange(self.size)
                sources.append(content[slot])
                content[slot] = arriving
            else:
                sources.append(arriving)
        for slot, source in content.items():
            if source >= self.size:
                writes[source - self.size] = slot
        return torch.tensor([sources, writes])

    def exchange(self, images: Tensor, decisions: Tensor) -> Tensor:
        """Carry out what `decide` drew for `images` [N, C, H, W]; returns as many to train on, detached."""
        images = images.detach()
        if self.size == 0:
            return images
        sources, writes = decisions.tolist()
        exchanged = torch.stack([self._images[s] if s < self.size else images[s - self.size] for s in sources])
        for image, slot in sorted(zip(images, writes, strict=True), key=lambda pair: pair[1]):
            if slot == len(self._images) < self.size:
                self._images.append(image.clone())
            elif slot < self.size:
                self._images[slot] = image.clone()
        return exchanged

    def kept(self) -> list[Tensor]:
        """Return the tensors that an exchange writes into and a later one reads."""
        return self._images

    def state_dict(self) -> PoolState:
        """Return the images in order, on the host; the random source belongs to its maker."""
        # Each a copy: a view would be saved, and sent to the first rank, with the whole stack that it looks at.
        images = [image.cpu().clone(memory_format=torch.contiguous_format) for image in self.images]
        return {"images": images, "filled": len(images)}

    def load_state_dict(self, state: PoolState, device: torch.device) -> None:
        """Take over the images that `state_dict` returned; raises ValueError where they do not fit."""
        images: Sequence[Tensor] = state["images"]
        if len(images) > self.size:
            raise ValueError(f"{len(images)} saved images do not fit a pool of {self.size}")
        self.filled = len(images)
        self._take([image.to(device) for image in images])

    def _take(self, images: list[Tensor]) -> None:
        self._images = images


class StackedImagePool(ImagePool):
    """Keeps images of one shape in one tensor: its exchange never waits for the host, nor the host for it.

    `impl` chooses who computes the exchange, see `kernels.dispatch.choose`.
    """

    def __init__(self, size: int, random_source: RandomSource, impl: Impl = "auto") -> None:
        super().__init__(size, random_source)
        self.impl: Impl = impl
        self._stack: Tensor | None = None  # [size + 1, C, H, W]; the last one takes what is not kept

    @property
    def images(self) -> list[Tensor]:
        return [] if self._stack is None else list(self._stack[: self.filled].clone())

    def kept(self) -> list[Tensor]:
        # Without the last one: which of several images it holds in the end, no order says.
        return [] if self._stack is None else [self._stack[: self.size]]

    def exchange(self, images: Tensor, decisions: Tensor) -> Tensor:
        images = images.detach()
        if self.size == 0:
            return images
        return image_exchange(images, self._stack_of(images[0]), decisions, impl=self.impl)

    def _stack_of(self, image: Tensor) -> Tensor:
        if self._stack is None:
            stack = image.new_zeros(self.size + 1, *image.shape)
            if choose("image_exchange", self.impl, image) == "triton":
                stack = stack.contiguous(memory_format=torch.channels_last)
            self._stack = stack
        if self._stack.shape[1:] != image.shape:
            raise ValueError(
                f"the pool holds images of shape {list(self._stack.shape[1:])} and was given {list(image.shape)}"
            )
        return self._stack

    def _take(self, images: list[Tensor]) -> None:
        self._stack = None
        if images:
            stack = self._stack_of(images[0])
            stack[: len(images)] = torch.stack(images)
