"""Turns what ONNX Runtime, OpenVINO, TensorRT and onnx raise into errors that users can mend.

Each has exceptions of its own that no base class joins. On the way to Python C++'s standard exceptions become plain
ones, such as RuntimeError, as do names in a graph that are no UTF-8. A UserError of ours passes through.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from cyclegan_fast.system.errors import UserError

_LIBRARIES = {"onnxruntime", "openvino", "onnx", "google", "tensorrt", "tensorrt_rtx"}
_PLAIN = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
_LONGEST_REASON = 300  # characters: some quote a whole graph


@contextmanager
def explaining(what: str, advice: str) -> Iterator[None]:
    """Raise a UserError for an exception of a library that is called inside: `what`, its reason, and `advice`.

    Only the call itself belongs inside, since plain exceptions of Python are taken for the library's.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not isinstance(error, _PLAIN) and type(error).__module__.partition(".")[0] not in _LIBRARIES:
            raise
        raise UserError(f"{what} ({reason_of(error)}): {advice}") from error


def reason_of(error: BaseException) -> str:
    """Return the last line of an error, which tells the innermost reason, in 300 characters at most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if len(lines[-1]) <= _LONGEST_REASON else f"{lines[-1][:_LONGEST_REASON]} ..."
