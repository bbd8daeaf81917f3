"""Exports trained generators as ONNX files and TensorRT engines, verifies and runs them (floor 2 of the project).

The commands are `to_onnx`, `trt`, `web`, `verify`, `run` and `serve`. From Python, `export.load` gives a translator of
an ONNX file or an engine, and `runtime.Engine` runs an engine without more. `graphs/` makes ONNX graphs, `engines/`
builds and describes engines, `device/` runs them on a GPU, `browser/` writes web pages, `serving/` puts files behind a
server.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load` when it is asked for: what runs an engine imports less."""
    if name == "load":
        from export.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
