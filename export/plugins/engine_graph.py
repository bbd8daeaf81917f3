"""Chooses what computes an engine's norms, and gives the graph that TensorRT is handed for that."""

from typing import TYPE_CHECKING, Literal

from cyclegan_fast.system.errors import UserError
from export.engines.engine_card import Profile
from export.engines.libraries import Library, capability_here
from export.library_errors import explaining
from export.options import is_eight_bits
from export.plugins.node_names import DOMAIN
from export.plugins.norm_plugins import plugin_package, register_norm_plugins

if TYPE_CHECKING:
    from onnx import ModelProto

Norms = Literal["library", "triton"]


def check_norms(norms: Norms, library: Library, precision: str) -> None:
    """Raise UserError where engines of that library or precision cannot hold this project's norms."""
    if norms == "library":
        return
    plugin_package(library)
    if is_eight_bits(precision):
        raise UserError(f"--norms triton goes with --precision float32, float16 and bfloat16, not with {precision}")


def engine_graph(
    norms: Norms, library: Library, model: "ModelProto", onnx: bytes, profile: Profile
) -> tuple[bytes, list[str]]:
    """Return the graph to build an engine from, and the names of the plugins in it.

    Args:
        norms: what computes the norms.
        library: from `export.engines.libraries`.
        model: the typed graph.
        onnx: its bytes, as they are written to the .onnx file, which stays one that any runtime takes.
        profile: the shapes that the engine takes.

    Raises UserError where the kernels do not compute the graph's norms.
    """
    if norms == "library":
        return onnx, []
    from export.graphs.graph import serialised
    from export.graphs.plugin_nodes import with_norm_plugins

    capability = capability_here()
    with explaining(f"{library.name} {library.version} did not take the plugins", "leave --norms triton out"):
        register_norm_plugins(library, capability)
    changed = with_norm_plugins(model, profile.usual, profile.largest, capability)
    return serialised(changed), [node.name for node in changed.graph.node if node.domain == DOMAIN]
