"""Measures how long an export takes: a trained generator to ONNX in several precisions, and to an engine."""

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from io import BytesIO

import torch

from bench.cases.plain_cyclegan import PlainGenerator
from bench.measure.contest import Case, Contest
from bench.measure.limits import UNBOUNDED
from bench.measure.timing import Contender
from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.networks.resnet import ResnetGenerator

_PLAIN_EXPORT = "torch.onnx.export of the original's modules"


def export_cases(side: int, blocks: int = 9) -> Iterator[Case]:
    """Yield the case of a generator for images of `side` pixels."""
    what, make = f"generator of {blocks} blocks to a file", partial(_contest, side, blocks)
    yield Case.of_images("export", what, 1, side, torch.float32, UNBOUNDED, make)


def _contest(side: int, blocks: int) -> Contest:
    """Return exports from weights in memory."""
    from export import to_onnx
    from export.graphs.graph import serialised
    from export.graphs.precision import in_precision

    torch.manual_seed(0)
    network = ResnetGenerator(blocks=blocks).eval()
    original = PlainGenerator(blocks=blocks).eval()
    original.load_state_dict(to_original(network.state_dict()))
    image = torch.zeros(1, 3, side, side)

    def plain() -> None:
        program = torch.onnx.export(original, (image,), dynamo=True, verbose=False)
        assert program is not None
        program.save(BytesIO())  # type: ignore[arg-type]  # takes a stream too

    def in_float32() -> None:
        serialised(to_onnx.float32_graph(network))

    def in_float16() -> None:
        serialised(in_precision(to_onnx.float32_graph(network), "float16"))

    contenders: dict[str, Callable[[], object]] = {
        _PLAIN_EXPORT: plain,
        "ours": in_float32,
        "ours, float16": in_float16,
    }
    if find_spec("tensorrt_rtx") is not None:
        contenders["ours, an engine of it, TensorRT for RTX"] = _engine_builder(network, side)
    return Contest(
        {name: Contender([call]) for name, call in contenders.items()},
        ours="ours",
        plain=_PLAIN_EXPORT,
    )


def _engine_builder(network: ResnetGenerator, side: int) -> Callable[[], object]:
    from export.engines.builder import build
    from export.engines.engine_card import Profile
    from export.engines.libraries import load_library
    from export.graphs.graph import serialised
    from export.graphs.precision import in_precision
    from export.to_onnx import float32_graph

    content = serialised(in_precision(float32_graph(network), "float16"))
    profile = Profile(*3 * [(1, side, side)])
    return lambda: build(load_library("tensorrt_rtx"), content, profile, targets=("sm89",), progress=False)
