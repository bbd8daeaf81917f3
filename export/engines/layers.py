"""Reads which layers an engine has, by the library's inspector.

The inspector needs the GPU that the engine was built for. No line of this has run on one yet.
"""

import json
from collections.abc import Iterable

from cyclegan_fast.system.errors import UserError
from export.engines.builder import messages_of
from export.engines.libraries import Library
from export.library_errors import explaining


def layers_of(library: Library, content: bytes) -> list[str]:
    """Return the names of an engine's layers, in the order in which they run. A fused layer has the names of its parts.

    Raises UserError where the engine cannot be read here.
    """
    trt, messages = library.module, messages_of(library)
    with explaining("the engine's layers cannot be read", "build it anew with python export/trt.py"):
        engine = trt.Runtime(messages).deserialize_cuda_engine(content)
        if engine is None:
            raise UserError(f"the engine's layers cannot be read: {messages.last}")
        information = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        layers = json.loads(information)["Layers"]
    # An engine built with more verbosity has an object for each layer.
    return [layer["Name"] if isinstance(layer, dict) else layer for layer in layers]


def require_layers(library: Library, content: bytes, wanted: Iterable[str]) -> None:
    """Raise UserError where an engine has no layer for one of the names."""
    if not (names := tuple(wanted)):
        return
    layers = layers_of(library, content)
    missing = [name for name in names if not any(name in layer for layer in layers)]
    if missing:
        raise UserError(
            f"of {len(layers)} layers in the engine none is {missing[0]} ({len(missing)} such): {library.name} "
            f"{library.version} did not take this project's kernels, leave --norms triton out"
        )
