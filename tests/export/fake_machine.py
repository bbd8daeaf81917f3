"""Imitates a machine with a GPU, a library and an engine file."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.engines.engine_card import EngineCard, Profile
from export.pixel_ends import RGB_ENDS, PixelEnds
from export.runtime import Engine
from tests.export.fake_gpu import FakeGpu
from tests.export.fake_tensorrt import GOOD, FakeTensorRT

PROFILE = Profile((1, 8, 8), (1, 16, 16), (4, 1024, 1024))

Machine = Callable[..., "World"]


class World:
    """Holds a GPU, a library and an engine file."""

    def __init__(
        self,
        folder: Path,
        gpu: FakeGpu,
        *,
        rtx: bool,
        uint8_io: bool,
        content: bytes = GOOD,
        ends: PixelEnds = RGB_ENDS,
    ) -> None:
        self.gpu = gpu
        self.trt = FakeTensorRT(gpu, rtx=rtx, uint8_io=uint8_io, ends=ends)
        self.path = folder / "x.engine"
        self.path.write_bytes(content)
        library = "tensorrt_rtx" if rtx else "tensorrt"
        digest = hashlib.sha256(content).hexdigest()
        self.card = EngineCard(
            *(library, self.trt.module.__version__, ("sm86", "sm89"), "float16", "a2b", uint8_io, PROFILE),
            *("image", "translated", "0" * 64, "0" * 64, digest, "0.1.0", {}, ends),
        )
        self.card.write(self.path.with_suffix(".json"))

    def engine(self, **options: Any) -> Engine:
        return Engine(self.path, **options)

    def images(self, count: int = 1, height: int = 16, width: int = 12, seed: int = 0) -> Any:
        random = np.random.default_rng(seed)
        if self.trt.uint8_io:
            return random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
        return random.uniform(-1, 1, (count, 3, height, width)).astype(np.float32)

    def calls_of(self, function: Callable[[], Any]) -> list[str]:
        before = len(self.gpu.calls)
        function()
        return self.gpu.calls[before:]
