"""Translates what a Python program has: pictures of Pillow's, arrays, tensors or files, one or many, of any size.

`cyclegan_fast.load` makes an `ImageTranslator` of a trained network, and `export.load` makes one of an exported file.
Importing it needs no PyTorch.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import numpy as np
from PIL import Image

from cyclegan_fast.conventions import SIDE_MULTIPLE, Direction, padded_side
from cyclegan_fast.images.decoding import decode
from cyclegan_fast.images.levels import ValueRange
from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.images.pixels import images_at_once
from cyclegan_fast.images.samples import Axis, Frames
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.ranges import BatchSize, check_value
from cyclegan_fast.translation.batches import same_shaped
from cyclegan_fast.translation.given_images import (
    checked_samples,
    checked_tensor,
    images_taken,
    is_tensor,
    like_given,
    samples_of_picture,
)
from cyclegan_fast.translation.prepared import Mask, Reading, fill_missing, is_picture, pad_sides, with_missing
from cyclegan_fast.translation.translator import NotFinite, Translator

if TYPE_CHECKING:
    from torch import Tensor

_Result = TypeVar("_Result")


class ImageTranslator:
    """Translates images from Python: call it with a picture, an array, a tensor, or a list of pictures.

    Images may have any size: they are padded by reflection to sides that the network takes, and cropped again, as the
    commands do. Several threads may call it; they wait for one another. It is a context manager, which closes it.

    `source` and `target` describe the pixels that it takes and those that it gives: channels, type of samples, and the
    range that becomes [-1, 1]. Values beyond the range of `source` become its ends. NaN is translated as its low end,
    and is NaN again where `target` is of floating point.

    Args:
        translator: translates samples of images whose sides are multiples of `multiple`.
        tensors: translates [N, C, H, W] in [-1, 1] of such sides, without rounding; None where nothing can.
        direction: what is translated into what; None where nobody knows.
        description: says in a phrase what translates, for the repr.
        multiple: what sides must be multiples of.
        batch_size: images translated at once, at most; None for as many as make half a megapixel.
        value_range: the values of pictures of more than 8 bits that become black and white, see `decode`.
        frames, axis: what the pages of a file are, see `read_samples`; of "slices", the first is translated.
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
        frames: Frames = "first",
        axis: Axis = 2,
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
        self.frames: Frames = "channels" if frames == "channels" else "first"
        self.axis = axis
        self.source: PixelType = translator.source
        self.target: PixelType = translator.target
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
    def __call__(self, images: SampleArray) -> SampleArray: ...

    @overload
    def __call__(self, images: "Tensor") -> "Tensor": ...

    @overload
    def __call__(self, images: Sequence[Image.Image | os.PathLike[str]] | list[str]) -> list[Image.Image]: ...

    @overload
    def __call__(self, images: Sequence[SampleArray]) -> list[SampleArray]: ...

    def __call__(self, images: Any) -> Any:
        """Translate images, and return the same kind, size and number of them.

        Args:
            images: one of Pillow's pictures, or the path of a file, gives a picture, upright and in RGB; an array
                [H, W, C] or [N, H, W, C] of the channels and type of `source` gives an array of those of `target`, and
                [H, W] one of [H, W] where both have 1 channel; a floating-point tensor [C, H, W] or [N, C, H, W] in
                [-1, 1] gives a tensor of its type on its device, not rounded to samples and without a gradient; a list
                of pictures, paths and arrays [H, W, C] gives a list, whose neighbours of one size share a batch.
                Where no picture of Pillow's holds samples of `target`, as int16 or 4 channels of 16 bits, pictures and
                paths give arrays [H, W, C].

        Raises UserError for anything else, where the memory does not suffice, and after `close`; UnreadableImage for a
        file that is no image; NotFinite where a translation holds NaN or infinities.
        """
        if is_tensor(images):
            return self._translate_tensor(images)
        if isinstance(images, np.ndarray) and images.ndim == 4:
            if not len(images):
                return self._none(images)
            return np.stack(self._translate([checked_samples(image, self.source) for image in images]))
        if isinstance(images, list | tuple):
            translations = self._translate([self._samples_of(image) for image in images])
            given = zip(images, translations, strict=True)
            return [like_given(image, samples, self.target) for image, samples in given]
        return like_given(images, self._translate([self._samples_of(images)])[0], self.target)

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

    def _samples_of(self, image: object) -> SampleArray:
        """Return one image as samples [H, W, C] of `source`, as the commands decode it."""
        if isinstance(image, np.ndarray):
            return checked_samples(image, self.source)
        if isinstance(image, Image.Image):
            return samples_of_picture(image, self.source, self.value_range)
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            if self.source.is_rgb and self.frames == "first" and is_picture(path):
                return decode(path, self.value_range).pixels
            reading = Reading(self.source, self.value_range, self.frames, self.axis)
            return np.asarray(reading.samples(path).values[0])
        raise UserError(f"a translator takes {images_taken(self.source)}; got {type(image).__name__}")

    def _none(self, images: SampleArray) -> SampleArray:
        """Return the translation of no image, [0, H, W, C]."""
        return np.empty((*images.shape[:3], self.target.channels), self.target.as_numpy)

    def _translate(self, images: Iterable[SampleArray]) -> list[SampleArray]:
        padded = (_padded(image, self.source, self.multiple) for image in images)
        translations: list[SampleArray] = []
        with self._lock, self._explained():
            for batch in same_shaped(padded, self.batch_size):
                translate = _require_open(self._translator)
                translated = _counted(translate, np.stack([image.pixels for image in batch]), len(translations))
                translations += [
                    with_missing(samples[: image.height, : image.width], image.missing, self.target)
                    for image, samples in zip(batch, translated, strict=True)
                ]
        return translations

    def _translate_tensor(self, images: "Tensor") -> "Tensor":
        import torch

        batch = checked_tensor(images, self.source)
        height, width = batch.shape[2:]
        for axis, side in ((2, height), (3, width)):
            if missing := padded_side(side, self.multiple) - side:
                places = np.pad(np.arange(side), (0, missing), mode="reflect")
                batch = batch.index_select(axis, torch.from_numpy(places).to(batch.device))
        with self._lock, self._explained():
            _require_open(self._translator)
            if self._tensors is None:
                raise UserError(
                    f"{self.description} takes {'8-bit pixels' if self.source.dtype == 'uint8' else 'samples'} only: "
                    f"give pictures or {self.source.dtype} arrays"
                )
            parts, done = [], 0
            for part in torch.split(batch, self.batch_size or images_at_once(*batch.shape[2:])):
                parts.append(_counted(self._tensors, part, done) if len(part) else part)
                done += len(part)
        translated = torch.cat(parts)[:, :, :height, :width]
        return translated if images.dim() == 4 else translated[0]


@dataclass(frozen=True)
class _Padded:
    """Holds an image whose sides a network takes; the first `height` x `width` pixels are the image."""

    pixels: SampleArray
    height: int
    width: int
    missing: Mask | None


def _padded(samples: SampleArray, source: PixelType, multiple: int) -> _Padded:
    values, missing = fill_missing(samples, source)
    height, width = samples.shape[:2]
    return _Padded(pad_sides(values, multiple), height, width, missing)


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
