"""Test that graphs which are no generators of ours end in one sentence, whatever a library says of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, helper

from cyclegan_fast.system.errors import UserError, printable
from export.graphs.graph import serialised
from export.graphs.onnx_file import with_digest
from export.graphs.quantisation import ranges_of
from export.onnx_translators import load_translator
from export.parity import in_onnxruntime
from export.verify import VerifyCommand, exported
from tests.faults.exports import GRAPHS, UNSAFE_IN_OPENVINO

pytestmark = pytest.mark.usefixtures("one_thread")

METADATA = {"precision": "float32", "direction": "a2b", "checkpoint_sha256": "0" * 64}
COMPUTED = {"unchanged", "no metadata", "unknown precision", "unknown direction", "another checkpoint"}
"""The changes of a campaign that leave a graph which can be computed."""

REFUSED_BY_VERIFY = {
    "no metadata",
    "unknown precision",
    "unknown direction",
    "two outputs",
    "input of another name",
    "a cycle",
}


@pytest.fixture
def model(graph: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(graph)
    helper.set_model_props(copy, METADATA)
    return copy


def ending_of(function: Callable[[], object]) -> str | None:
    """Return the message that a function ends with, which must be fit for one line, or None."""
    try:
        function()
    except UserError as error:
        shown = printable(str(error))
        assert len(shown) < 800
        return shown
    return None


@pytest.mark.parametrize("name", GRAPHS)
def test_a_changed_graph_is_computed_or_refused_in_a_sentence(tmp_path: Path, model: ModelProto, name: str) -> None:
    GRAPHS[name](model)
    path = tmp_path / "x.onnx"
    path.write_bytes(serialised(model))
    for backend in ("onnxruntime",) if name in UNSAFE_IN_OPENVINO else ("openvino", "onnxruntime"):

        def translate(backend: Any = backend) -> None:
            translator, _ = load_translator(path, backend, "cpu", amp=False, threads=1, notes=(notes := []))
            assert len(notes) == 1
            translator(np.zeros((1, 8, 8, 3), np.uint8))

        refusal = ending_of(translate)
        known = ("x.onnx", "could not translate", "not finite", "the memory does not hold")
        assert refusal is None or any(part in refusal for part in known)
        assert refusal is None or name not in COMPUTED
    refusal = ending_of(lambda: exported(VerifyCommand(onnx=path), []))
    assert refusal is None or "x.onnx" in refusal
    assert refusal is not None or name not in REFUSED_BY_VERIFY
    assert refusal is None or name not in {"unchanged", "another checkpoint"}


def test_a_graph_that_says_nothing_of_itself_is_not_compared(tmp_path: Path, model: ModelProto) -> None:
    path = tmp_path / "x.onnx"
    for changes in ({"precision": "float4"}, {"direction": "up"}):
        helper.set_model_props(model, {**METADATA, **changes})
        path.write_bytes(with_digest(serialised(model)))
        with pytest.raises(UserError, match="does not say in its metadata which precision"):
            exported(VerifyCommand(onnx=path), [])
    helper.set_model_props(model, METADATA)
    path.write_bytes(with_digest(serialised(model)))
    assert exported(VerifyCommand(onnx=path), []).precision == "float32"


def test_a_graph_that_onnx_runtime_does_not_compute_is_named() -> None:
    with pytest.raises(UserError, match=r"ONNX Runtime cannot compute x.onnx \(.*\): export it anew"):
        in_onnxruntime(b"\x08\x0a", np.zeros((1, 8, 8, 3), np.uint8), "x.onnx")


def test_a_graph_without_ranges_has_none(model: ModelProto) -> None:
    with pytest.raises(UserError, match="the graph has no ranges of int8"):
        ranges_of(model, "int8")
