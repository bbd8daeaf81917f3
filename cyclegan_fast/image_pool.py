"""The history of generated images that the discriminators are trained on (Shrivastava et al. 2017, section 2.3)."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class RandomSource(Protocol):
    """The two draws that the pool makes; `random.Random` has both."""

    def random(self) -> float: ...

    def randrange(self, stop: int, /) -> int: ...


class ImagePool:
    """Holds up to `size` generated images and hands out old ones half of the time.

    Args:
        size: images kept, 50 in the paper; 0 switches the pool off.
        random_source: where decisions are drawn from, on the host.
    """

    def __init__(self, size: int, random_source: RandomSource) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        self.size = size
        self.random_source = random_source
        self.images: list[Tensor] = []  # each [C, H, W]

    def query(self, images: Tensor) -> Tensor:
        """[N, C, H, W] newest images -> as many to train on, detached.

        While the pool fills, an image is stored and returned and no random number is drawn. Then, image by image, with
        probability 0.5 it takes the place of a uniformly drawn one, which is returned; otherwise it is returned itself
        and not stored. An image may so replace one that came earlier in the same batch.
        """
        images = images.detach()
        if self.size == 0:
            return images
        return torch.stack([self._exchange(image) for image in images])

    def _exchange(self, image: Tensor) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if self.random_source.random() < 0.5:
            slot = self.random_source.randrange(self.size)
            old = self.images[slot]
            self.images[slot] = image.clone()
            return old
        return image

    def state_dict(self) -> dict[str, Any]:
        """The images in order; the random source belongs to whoever made it."""
        return {"images": list(self.images)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        images: Sequence[Tensor] = state["images"]
        if len(images) > self.size:
            raise ValueError(f"{len(images)} saved images do not fit a pool of {self.size}")
        self.images = [image.to(device) for image in images]
