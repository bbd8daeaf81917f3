"""Replaces the norms of a typed graph by nodes for this project's own kernels, which `export.plugins` gives TensorRT.

A norm with its Relu or its residual sum, the Casts around them and a reflection pad behind them becomes two nodes:

    statistics_of_splits = NormStatistics(x)                              [N, splits, 3, C] float32
    y, statistics        = NormApply(x, statistics_of_splits)             or NormApplyResidual, with a residual

Where a sum is read by the next block's sum as well, its pad stays a Pad. x, y and the residual keep the types that they
are stored in, y is rounded once, and everything between is float32, as in the graph that it was. Attributes say how the
kernels are tiled; those of floating point are text, since ONNX has 32 bits for them.
"""

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cyclegan_fast.system.errors import UserError
from cyclegan_fast.version import __version__
from export.engines.engine_card import ImageShape
from export.graphs.graph import readers_of
from export.plugins.node_names import APPLY_NODE, APPLY_RESIDUAL_NODE, DOMAIN, STATISTICS_NODE

_TYPES = {int(TensorProto.FLOAT): "float32", int(TensorProto.FLOAT16): "float16", int(TensorProto.BFLOAT16): "bfloat16"}

_MOST_ELEMENTS = (1 << 31) - 1  # of one image: the kernels count them in 32 bits
_CHANNELS = 8  # TensorRT's channels-last formats of 16 bits pad the channels to a multiple of these


@dataclass(frozen=True)
class ReplacedNorm:
    """Says what one norm of a graph reads and writes."""

    x: str
    residual: str | None
    y: str
    relu: bool
    pad: int
    eps: float
    replaced: tuple[str, ...]
    """names of the nodes that the plugins take the place of"""


def with_norm_plugins(model: ModelProto, usual: ImageShape, largest: ImageShape, capability: int) -> ModelProto:
    """Return a copy of a typed graph whose norms are plugins.

    Args:
        model: in float32, float16 or bfloat16, as `export.graphs.precision` makes it.
        usual: the shape that the kernels are tiled for; they are right for every other, too.
        largest: the largest shape that the engine takes.
        capability: 10 * major + minor of the GPU that they are tiled for.

    Raises UserError where a norm is not of the form that the kernels compute, or an image is too large for them.
    """
    graph = model.graph
    producers = {output: node for node in graph.node for output in node.output}
    readers = readers_of(graph.node)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    sites = {
        node.name: _site(node, producers, readers, constants)
        for node in graph.node
        if node.op_type == "InstanceNormalization"
    }
    shapes, at_most = _shapes_at(model, usual), _shapes_at(model, largest)
    for site in sites.values():
        _, channels, height, width = at_most[site.x]
        if channels * (height + 2 * site.pad) * (width + 2 * site.pad) > _MOST_ELEMENTS:
            raise UserError(
                f"--norms triton takes images of up to 2^31 elements in a layer, and {site.replaced[0]} has more at "
                f"{largest[2]}x{largest[1]} pixels: give a smaller --max-size"
            )
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    last = {site.replaced[-1]: site for site in sites.values()}
    gone = {name for site in sites.values() for name in site.replaced}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.name in last:
            site = last[node.name]
            nodes += _plugins(site, shapes[site.x], _TYPES[types[site.x]], _TYPES[types[site.y]], capability)
        elif node.name not in gone:
            nodes.append(node)
    return _model_of(model, _live(nodes, {value.name for value in graph.output}))


def _site(
    norm: NodeProto,
    producers: dict[str, NodeProto],
    readers: dict[str, list[NodeProto]],
    constants: dict[str, TensorProto],
) -> ReplacedNorm:
    """Return what a norm and the nodes around it compute. They are followed to the first that is none of the form."""
    scale, bias = (numpy_helper.to_array(constants[name]) for name in norm.input[1:])
    if (scale != 1).any() or bias.any():
        raise UserError(f"{norm.name} has a scale and a bias, which the kernels of --norms triton have not")
    (eps,) = (attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
    replaced, y, relu, residual, pad = [norm.name], norm.output[0], False, None, 0

    def follower(*kinds: str) -> NodeProto | None:
        following = readers.get(y, [])
        return following[0] if len(following) == 1 and following[0].op_type in kinds else None

    if (node := follower("Relu", "Add")) is not None:
        relu = node.op_type == "Relu"
        if not relu:
            (other,) = (name for name in node.input if name != y)
            residual = _before_cast(other, producers)
        replaced.append(node.name)
        y = node.output[0]
    if (node := follower("Cast")) is not None:
        replaced.append(node.name)
        y = node.output[0]
    if (node := follower("Pad")) is not None and (pad := _reflected(node, constants)):
        replaced.append(node.name)
        y = node.output[0]
    return ReplacedNorm(_before_cast(norm.input[0], producers), residual, y, relu, pad, eps, tuple(replaced))


def _before_cast(tensor: str, producers: dict[str, NodeProto]) -> str:
    """Return what a Cast made a tensor of, or the tensor itself."""
    node = producers.get(tensor)
    return node.input[0] if node is not None and node.op_type == "Cast" else tensor


def _reflected(pad: NodeProto, constants: dict[str, TensorProto]) -> int:
    """Return the width of a reflection pad that is the same on all four sides, or 0 for another kind of pad."""
    (mode,) = (attribute.s for attribute in pad.attribute if attribute.name == "mode")
    widths = numpy_helper.to_array(constants[pad.input[1]]).tolist()
    width = int(widths[2])
    return width if mode == b"reflect" and widths == [0, 0, width, width] * 2 else 0


def _shapes_at(model: ModelProto, usual: ImageShape) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors for images of the usual shape."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    for value in (*fixed.graph.input, *fixed.graph.output):
        sides = value.type.tensor_type.shape.dim
        samples_last = sides[3].HasField("dim_value")
        for side, length in zip(sides, (usual[0], 0, *usual[1:]) if not samples_last else (*usual, 0), strict=True):
            if not side.HasField("dim_value"):
                side.dim_value = length
    inferred = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)
    return {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in inferred.graph.value_info
    }


def _plugins(site: ReplacedNorm, shape: tuple[int, ...], x_type: str, y_type: str, capability: int) -> list[NodeProto]:
    """Return the two nodes of one norm, with the tiles that the project's own launches of that shape have."""
    import torch

    from cyclegan_fast.kernels.gpus import GPUS
    from cyclegan_fast.kernels.norm.planning import two_phase_rule

    batch, channels, height, width = shape
    if channels % _CHANNELS:
        raise UserError(
            f"--norms triton needs channels in multiples of {_CHANNELS}, and {site.replaced[0]} has {channels}: leave "
            "it out"
        )
    known = max((each for each in GPUS if each <= capability), default=min(GPUS))
    plan = two_phase_rule("forward", (batch, channels, height, width), site.pad, getattr(torch, x_type), GPUS[known])
    tile: dict[str, Any] = {
        "channels": channels,
        "block_pixels": plan.block_pixels,
        "block_channels": plan.block_channels,
    }
    name = site.replaced[0]
    partials = f"{name}.partials"
    options: dict[str, Any] = {**plan.options}
    writer_options: dict[str, Any] = {**plan.writer_options}
    # With aot the parser asks for the compiled kernel, and for no other implementation.
    of_plugin: dict[str, Any] = {"domain": DOMAIN, "plugin_namespace": DOMAIN, "aot": 1}
    statistics = helper.make_node(
        STATISTICS_NODE,
        [site.x],
        [partials],
        name=partials,
        **of_plugin,
        pixels_per_program=plan.pixels_per_program,
        **tile,
        **options,
    )
    inputs = [site.x, partials] if site.residual is None else [site.x, partials, site.residual]
    apply = helper.make_node(
        APPLY_NODE if site.residual is None else APPLY_RESIDUAL_NODE,
        inputs,
        [site.y, f"{name}.statistics"],
        name=f"{name}.apply",
        **of_plugin,
        activation="relu" if site.relu else "none",
        pad=site.pad,
        epsilon=repr(round(site.eps, 12)),
        to=y_type,
        pixels_per_program=plan.writer_pixels,
        **tile,
        **writer_options,
    )
    return [statistics, apply]


def _live(nodes: list[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """Return the nodes that a wanted tensor depends on, in their order."""
    kept: list[NodeProto] = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def _model_of(model: ModelProto, nodes: list[NodeProto]) -> ModelProto:
    graph = model.graph
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    made = helper.make_model(
        helper.make_graph(nodes, graph.name, graph.input, graph.output, weights),
        opset_imports=[*model.opset_import, helper.make_opsetid(DOMAIN, 1)],
        producer_name="cyclegan-fast",
        producer_version=__version__,
        ir_version=model.ir_version,
    )
    helper.set_model_props(made, {entry.key: entry.value for entry in model.metadata_props})
    onnx.checker.check_model(made)  # which knows nothing of the plugins' types and shapes
    return made
