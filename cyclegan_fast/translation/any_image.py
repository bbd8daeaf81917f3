"""Translates what a Python program has: pictures of Pillow's, arrays, tensors or files, one or many, of any size.

`cyclegan_fast.load` makes an `ImageTranslator` of a trained network, and `export.load` makes one of an exported file.
Importing it needs no PyTorch.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeGuard, TypeVar, overload

import numpy as np
from PIL import Image

from cyclegan_fast.conventions import SIDE_MULTIPLE, Direction, padded_side
from cyclegan_fast.images.decoding import decode, decode_opened
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixels import Pixels, images_at_once
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import BatchSize, check_value
from cyclegan_fast.translation.batches import pad_sides, same_shaped
from cyclegan_fast.translation.translator import NotFinite, Translator

if TYPE_CHECKING:
    from torch import Tensor

_Result = TypeVar("_Result")

_TAKEN = (
    "a picture of Pillow's, a file's path, a uint8 array [H, W, 3] or [N, H, W, 3], a floating-point tensor [3, H, W] "
    "or [N, 3, H, W] in [-1, 1], or a list of pictures, paths and arrays"
)
_LARGEST = 1.001
"""The largest magnitude of a tensor in [-1, 1], whatever its precision."""


class ImageTranslator:
    """Translates images from Python: call it with a picture, an array, a tensor, or a list of pictures.

    Images may have any size: they are padded by reflection to sides that the network takes, and cropped again, as the
    commands do. Several threads may call it; they wait for one another. It is a context manager, which closes it.

    Args:
        translator: translates 8-bit pixels whose sides are multiples of `multiple`.
        tensors: translates [N, 3, H, W] in [-1, 1] of such sides, without rounding; None where nothing can.
        direction: what is translated into what; None where nobody knows.
        description: says in a phrase what translates, for the repr.
        multiple: what sides must be multiples of.
        batch_size: images translated at once, at most; None for as many as make half a megapixel.
        value_range: the values of pictures of more than 8 bits that become black and white, see `decode`.
        explained: makes a context that turns a device's errors into UserErrors.
        close: frees what the translator holds.
        save, push: do what the methods `save` and `push_to_hub` say; None where there is nothing to publish.
    """

    def __init__(
        self,
        translator: Translator,
        *,
        tensors: "Callable[[Tensor], Tensor] | None",
        direction: Direction | None,
        description: str,
        multiple: int = SIDE_MULTIPLE,
        batch_size: int | None = None,
        value_range: ValueRange | None = None,
        explained: Callable[[], AbstractContextManager[None]] = nullcontext,
        close: Callable[[], None] = lambda: None,
        save: Callable[..., None] | None = None,
        push: Callable[..., str] | None = None,
    ) -> None:
        try:
            check_value("batch_size", batch_size, BatchSize | None)
        except ValueError as error:
            raise UserError(str(error)) from error
        self.direction = direction
        self.description = description
        self.multiple = multiple
        self.batch_size = batch_size
        self.value_range = value_range
        self._translator: Translator | None = translator
        self._tensors = tensors
        self._explained = explained
        self._close = close
        self._save = save
        self._push = push
        self._lock = Lock()

    @overload
    def __call__(self, images: Image.Image | str | os.PathLike[str]) -> Image.Image: ...

    @overload
    def __call__(self, images: Pixels) -> Pixels: ...

    @overload
    def __call__(self, images: "Tensor") -> "Tensor": ...

    @overload
    def __call__(self, images: Sequence[Image.Image | os.PathLike[str]] | list[str]) -> list[Image.Image]: ...

    @overload
    def __call__(self, images: Sequence[Pixels]) -> list[Pixels]: ...

    def __call__(self, images: Any) -> Any:
        """Translate images, and return the same kind, size and number of them.

        Args:
            images: one of Pillow's pictures, or the path of a file, gives a picture, upright and in RGB; a uint8 array
                [H, W, 3] or [N, H, W, 3] gives an array; a floating-point tensor [3, H, W] or [N, 3, H, W] in [-1, 1]
                gives a tensor of its type on its device, not rounded to 8 bits and without a gradient; a list of
                pictures, paths and arrays [H, W, 3] gives a list, whose neighbours of one size share a batch.

        Raises UserError for anything else, where the memory does not suffice, and after `close`; UnreadableImage for a
        file that is no image; NotFinite where a translation holds NaN or infinities.
        """
        if _is_tensor(images):
            return self._translate_tensor(images)
        if isinstance(images, np.ndarray) and images.ndim == 4:
            return np.stack(self._translate([_checked(image) for image in images])) if len(images) else images.copy()
        if isinstance(images, list | tuple):
            translations = self._translate([self._pixels_of(image) for image in images])
            return [_like(image, pixels) for image, pixels in zip(images, translations, strict=True)]
        return _like(images, self._translate([self._pixels_of(images)])[0])

    def save(self, folder: str | os.PathLike[str], *, samples: bool = True) -> None:
        """Write into a new folder what `push_to_hub` would bring to a hub; `load` takes the folder as it does a run.

        Args:
            folder: is made, or empty.
            samples: add the newest sample grids of the run, which show images of its data.

        Raises UserError for an exported file, and where the run has trained on since it was loaded.
        """
        _require_published(self._save, self.description)(Path(folder), samples=samples)

    def push_to_hub(
        self,
        repository: str,
        *,
        private: bool | None = None,
        branch: str | None = None,
        message: str = "Upload generators",
        token: str | None = None,
        samples: bool = True,
    ) -> str:
        """Bring the generators to Hugging Face's hub, where `load("hub:owner/name")` finds them; return the address.

        Of a run both directions are pushed, with their weights as safetensors, the configuration without the places of
        this machine, and a model card. The files are listed before they go; `save` writes them for a look. A card that
        is there already keeps its metadata, such as a licence, and what stands outside the two marks.

        Args:
            repository: "owner/name", which is made where it is not there yet.
            private: whether only its owner sees it; None leaves that to the hub, on which new ones are public as a
                rule. True is refused where the repository is there and public.
            branch: where to push to; by default the repository's main one.
            message: of the commit.
            token: by default that of `hf auth login`, or HF_TOKEN.
            samples: add the newest sample grids of the run, which show images of its data.

        Raises UserError where the package huggingface_hub is missing or the hub refuses, for an exported file, and
        where the run has trained on since it was loaded.
        """
        options = {"private": private, "branch": branch, "message": message, "token": token, "samples": samples}
        return _require_published(self._push, self.description)(repository, **options)

    def close(self) -> None:
        """Free the network or the engine, after the calls that are running; does nothing the second time."""
        with self._lock:
            if self._translator is not None:
                self._translator = self._tensors = None
                self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.description}{'' if self._translator else ', closed'})"

    def _pixels_of(self, image: object) -> Pixels:
        """Return one image as uint8 [H, W, 3], as the commands decode it."""
        if isinstance(image, np.ndarray):
            return _checked(image)
        if isinstance(image, Image.Image):
            try:
                return decode_opened(image, self.value_range).pixels
            except ValueError as error:  # the range of its values is not known, or it is of no mode that is RGB
                raise UserError(f"the picture of mode {image.mode} cannot be converted to 8 bits: {error}") from error
        if isinstance(image, str | os.PathLike):
            return decode(Path(image), self.value_range).pixels
        raise UserError(f"a translator takes {_TAKEN}; got {type(image).__name__}")

    def _translate(self, images: Iterable[Pixels]) -> list[Pixels]:
        padded = (_Padded(pad_sides(image, self.multiple), *image.shape[:2]) for image in images)
        translations: list[Pixels] = []
        with self._lock, self._explained():
            for batch in same_shaped(padded, self.batch_size):
                translate = _require_open(self._translator)
                translated = _counted(translate, np.stack([image.pixels for image in batch]), len(translations))
                pairs = zip(batch, translated, strict=True)
                translations += [pixels[: image.height, : image.width] for image, pixels in pairs]
        return translations

    def _translate_tensor(self, images: "Tensor") -> "Tensor":
        import torch

        batch = _checked_tensor(images)
        height, width = batch.shape[2:]
        for axis, side in ((2, height), (3, width)):
            if missing := padded_side(side, self.multiple) - side:
                places = np.pad(np.arange(side), (0, missing), mode="reflect")
                batch = batch.index_select(axis, torch.from_numpy(places).to(batch.device))
        with self._lock, self._explained():
            _require_open(self._translator)
            if self._tensors is None:
                raise UserError(f"{self.description} takes 8-bit pixels only: give pictures or uint8 arrays")
            parts, done = [], 0
            for part in torch.split(batch, self.batch_size or images_at_once(*batch.shape[2:])):
                parts.append(_counted(self._tensors, part, done) if len(part) else part)
                done += len(part)
        translated = torch.cat(parts)[:, :, :height, :width]
        return translated if images.dim() == 4 else translated[0]


@dataclass(frozen=True)
class _Padded:
    """Holds an image whose sides a network takes; the first `height` x `width` pixels are the image."""

    pixels: Pixels
    height: int
    width: int


def _require_published(publish: Callable[..., _Result] | None, description: str) -> Callable[..., _Result]:
    if publish is None:
        raise UserError(
            f"{description} has no weights to publish: load the run that it was made from, and publish that"
        )
    return publish


def _require_open(translator: Translator | None) -> Translator:
    if translator is None:
        raise UserError("the translator is closed: call it inside its `with`, or load it again")
    return translator


def _counted(translate: Callable[[Any], _Result], images: Any, done: int) -> _Result:
    """Translate a batch behind which `done` images lie; the index of an image that fails counts from the first."""
    try:
        return translate(images)
    except NotFinite as error:
        raise NotFinite(done + error.index) from error


def _is_tensor(images: object) -> "TypeGuard[Tensor]":
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    return torch is not None and isinstance(images, torch.Tensor)


def _checked(image: Any) -> Pixels:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"a translator takes {_TAKEN}; got an array {image.dtype} {list(image.shape)}")
    pixels: Pixels = image
    return pixels


def _checked_tensor(images: "Tensor") -> "Tensor":
    """Return images as [N, 3, H, W]; raises UserError unless they are such, and in [-1, 1]."""
    shape = list(images.shape)
    if not images.is_floating_point() or images.dim() not in (3, 4) or shape[-3] != 3 or 0 in shape[-2:]:
        raise UserError(f"a translator takes {_TAKEN}; got a tensor {images.dtype} {shape}".replace("torch.", ""))
    largest = float(images.detach().abs().max()) if images.numel() else 0.0
    if not largest <= _LARGEST:
        raise UserError(
            f"a tensor's values must lie in [-1, 1], and one has the magnitude {largest:g}: those of 8 bits become "
            "that by images / 127.5 - 1"
        )
    return images if images.dim() == 4 else images[None]


def _like(image: object, pixels: Pixels) -> Pixels | Image.Image:
    return pixels if isinstance(image, np.ndarray) else Image.fromarray(np.ascontiguousarray(pixels))
