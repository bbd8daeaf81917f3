"""Test that what a library raises becomes one sentence, and that errors of ours stay what they are."""

import openvino
import pytest
from google.protobuf.message import DecodeError
from onnx import checker
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument, NoSuchFile
from openvino.frontend import OpConversionFailure

from cyclegan_fast.system.errors import UserError
from export.library_errors import explaining, reason_of


@pytest.mark.parametrize(
    "error", [InvalidArgument, NoSuchFile, OpConversionFailure, DecodeError, checker.ValidationError, RuntimeError]
)
def test_a_librarys_error_becomes_one_sentence(error: type[Exception]) -> None:
    with (
        pytest.raises(UserError, match=r"^x.onnx is damaged \(the reason\): export it anew$") as raised,
        explaining("x.onnx is damaged", "export it anew"),
    ):
        raise error("Exception from core.cpp:\n\n  the reason  \n")
    assert isinstance(raised.value.__cause__, error)


@pytest.mark.parametrize("error", [UserError, AssertionError, KeyboardInterrupt, StopIteration])
def test_errors_of_ours_pass_through(error: type[BaseException]) -> None:
    ours = error("ours")
    with pytest.raises(error) as raised, explaining("x", "y"):
        raise ours
    assert raised.value is ours


def test_reasons_are_short() -> None:
    assert reason_of(MemoryError()) == "MemoryError"
    assert len(reason_of(ValueError("a graph " * 1000))) < 310


def test_the_libraries_raise_what_is_explained() -> None:
    with pytest.raises(UserError, match="x is damaged"), explaining("x is damaged", "export it anew"):
        openvino.Core().read_model(b"\x08")
