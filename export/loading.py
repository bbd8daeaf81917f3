"""Loads exported files to translate with from Python: `export.load`. It needs no PyTorch, but for tensors.

`cyclegan_fast.load` loads what PyTorch runs, and gives the same kind of translator.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cyclegan_fast.conventions import DIRECTIONS
from cyclegan_fast.images.pixels import FloatImages
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.process import check_threads
from cyclegan_fast.translation.any_image import ImageTranslator
from export.graph_translator import GraphTranslator
from export.onnx_translators import Backend, OnnxDevice, load_translator

if TYPE_CHECKING:
    from torch import Tensor


def load(
    path: str | os.PathLike[str],
    *,
    backend: Backend = "auto",
    device: OnnxDevice = "auto",
    amp: bool = False,
    threads: int | None = None,
    batch_size: int | None = None,
) -> ImageTranslator:
    """Load an ONNX file or an engine to translate with, as `python export/run.py` does, to the same bits.

    Args:
        path: an .onnx file, which runs on any CPU, or an .engine file with its .json file beside it, which runs on the
            GPUs that it was built for. Close what an engine gives, or use it in a `with`.
        backend: for an ONNX file: "openvino", "onnxruntime", or "auto", which is OpenVINO on a CPU where it is
            installed.
        device: for an ONNX file: "cpu", "cuda", or "auto", which is CUDA where ONNX Runtime offers it.
        amp: for an ONNX file on OpenVINO: compute in bfloat16 where the CPU has it.
        threads: for an ONNX file: threads that compute on a CPU.
        batch_size: images translated at once, at most; by default as many as make half a megapixel, or as an engine
            takes. An engine refuses images of sizes that it was not built for.

    Raises UserError where the file, its library or the device is missing or cannot be used. That an ONNX file has no
    digest, by which damage would be seen, is a UserWarning.
    """
    file = Path(path)
    if file.suffix.lower() == ".engine":
        if (backend, device, amp, threads) != ("auto", "auto", False, None):
            raise UserError("backend, device, amp and threads are for ONNX files: an engine has a GPU and a precision")
        return _load_engine(file, batch_size)
    check_threads(threads)
    notes: list[str] = []
    translator, means = load_translator(file, backend, device, amp=amp, threads=threads, notes=notes)
    for note in notes:
        warnings.warn(note, UserWarning, stacklevel=2)
    return ImageTranslator(
        translator,
        tensors=_of_tensors(translator.signed) if translator.signed else None,
        direction=None,
        description=f"{file}, {means}{_in_words(translator)}",
        batch_size=batch_size,
        frames=translator.frames.frames,
        axis=translator.frames.axis,
    )


def _load_engine(file: Path, batch_size: int | None) -> ImageTranslator:
    from export.engines.engine_card import EngineCard
    from export.runtime import Engine

    card = EngineCard.beside(file)
    most = card.profile.largest[0]
    # With images of many sizes a graph would be recorded for each, and kernels compiled, and used once.
    engine = Engine(file, cuda_graph=card.profile.takes_one_size)
    translator = GraphTranslator(engine, card.uint8_io, card.ends, card.frames)
    return ImageTranslator(
        translator,
        tensors=_of_tensors(translator.signed) if translator.signed else None,
        direction=next((direction for direction in DIRECTIONS if direction == card.direction), None),
        description=f"{file}, {card.library} {card.version} in {card.precision}{_in_words(translator)}",
        batch_size=min(batch_size or most, most),
        frames=card.frames.frames,
        axis=card.frames.axis,
        close=engine.close,
    )


def _in_words(translator: GraphTranslator) -> str:
    return "" if translator.ends.are_rgb else f", {translator.ends}"


def _of_tensors(function: Callable[[FloatImages], FloatImages]) -> "Callable[[Tensor], Tensor]":
    """Return a function of tensors that calls one of arrays: float32 [N, C, H, W] in [-1, 1] -> the same."""

    def translate(images: "Tensor") -> "Tensor":
        import torch

        translated = function(images.detach().float().cpu().contiguous().numpy())
        return torch.from_numpy(np.array(translated)).to(images)

    return translate
