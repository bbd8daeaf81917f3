"""Runs NVIDIA's own `tensorrt.plugin` as TensorRT would call it, over an imitation of the few types behind it.

The package is Python, in the wheel tensorrt-cu13-bindings, and asks TensorRT's library, which needs a GPU, only for
types. Those come from TensorRT for RTX; the ones that it lacks, and expressions of sides, are made here.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class Expression:
    """Holds a side of a tensor, as TensorRT does while it builds; here its value for one shape."""

    def __init__(self, value: int) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return False  # no side may be taken for fixed

    def get_constant_value(self) -> int:
        raise AssertionError("a side that may vary was read")


class ExpressionBuilder:
    """Computes what `trt.IExprBuilder` writes down."""

    def __init__(self, operations: Any) -> None:
        self.operations = operations

    def constant(self, value: int) -> Expression:
        assert type(value) is int
        return Expression(value)

    def operation(self, kind: Any, first: Expression, second: Expression) -> Expression:
        kinds = self.operations
        compute: dict[Any, Callable[[int, int], int]] = {
            kinds.SUM: lambda a, b: a + b,
            kinds.PROD: lambda a, b: a * b,
            kinds.CEIL_DIV: lambda a, b: -(-a // b),
        }
        return Expression(compute[kind](first.value, second.value))


class Expressions(list[Any]):
    """Stands in for trt.DimsExprs, which takes TensorRT's own expressions alone."""

    def __init__(self, count: int) -> None:
        super().__init__([None] * count)


@dataclass
class End:
    """Stands in for trt.DynamicPluginTensorDesc, which describes an input or output of a plugin."""

    desc: Any


@dataclass
class Launch:
    """Holds what TensorRT would put into an engine for one plugin, at one shape."""

    name: str
    ptx: str
    grid: tuple[int, int, int]
    threads: int
    shared_bytes: int
    sizes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    """shapes of the outputs"""
    formats: tuple[str, ...]
    """formats of inputs and outputs"""
    types: tuple[str, ...]


def plugin_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return `tensorrt`, imitated, with the real `tensorrt.plugin` importable. Skips where it is not installed."""
    rtx = pytest.importorskip("tensorrt_rtx")
    if (found := importlib.util.find_spec("tensorrt_bindings")) is None:
        pytest.skip("tensorrt-cu13-bindings is not installed")
    (folder,) = found.submodule_search_locations or ()
    trt = ModuleType("tensorrt")
    trt.__dict__.update({name: value for name, value in vars(rtx).items() if not name.startswith("__")})
    trt.__path__ = [folder]  # type: ignore[attr-defined]
    trt.__dict__.update(
        __version__="11.4.0",
        IDimensionExpr=Expression,
        DimsExprs=Expressions,
        DynamicPluginTensorDesc=End,
        ISymExpr=type("ISymExpr", (), {}),
        IPluginV3QuickAOTBuild=type("IPluginV3QuickAOTBuild", (), {}),
        QuickPluginCreationRequest=Enum(
            "QuickPluginCreationRequest", "UNKNOWN PREFER_AOT PREFER_JIT STRICT_AOT STRICT_JIT"
        ),
        Builder=object,
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "tensorrt"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return trt


def launched(
    trt: Any, name: str, attributes: dict[str, Any], shapes: list[tuple[int, ...]], types: list[Any]
) -> Launch:
    """Return what TensorRT would make of a node, asking the plugin in TensorRT's order.

    Args:
        trt: of `plugin_module`, with the plugins registered.
        name: the plugin's, namespace::name.
        attributes: the node's, which are passed in the order of the plugin's own fields.
        shapes: of the inputs, at which expressions are computed.
        types: of the inputs, trt.DataType.
    """
    library = sys.modules["tensorrt.plugin._lib"]
    definition = library.QDP_REGISTRY[name]
    assert set(attributes) == set(definition.input_attrs), "ONNX attributes are the plugin's"
    ordered = {each: attributes[each] for each in definition.input_attrs}
    plugin = library._TemplateAOTPlugin(*reversed(name.split("::")), definition.num_outputs)
    plugin.init(
        definition.register_func,
        ordered,
        definition.aot_impl_attr_names,
        definition.aot_impl_func,
        definition.autotune_attr_names,
        definition.autotune_func,
    )
    plugin._tactic = 0
    builder = ExpressionBuilder(trt.DimensionOperation)
    output_types = plugin.get_output_data_types(types, [len(shape) for shape in shapes])
    sides = [[Expression(side) for side in shape] for shape in shapes]
    outputs = [tuple(side.value for side in exprs) for exprs in plugin.get_output_shapes(sides, [], builder)]
    ends = [
        End(SimpleNamespace(type=dtype, format=trt.TensorFormat.LINEAR, dims=(-1, *shape[1:]), scale=0.0))
        for dtype, shape in zip([*types, *output_types], [*shapes, *outputs], strict=True)
    ]
    combination = plugin.get_supported_format_combinations(ends, len(shapes))
    assert len(combination) == len(ends), "one way to pass the tensors"
    assert [each.type for each in combination] == [*types, *output_types], "a strongly typed network's own types"
    for end, each in zip(ends, combination, strict=True):
        end.desc.format = each.format
    plugin.configure_plugin(ends[: len(shapes)], ends[len(shapes) :])
    parameters, sizes = SimpleNamespace(), Sizes()
    plugin.get_launch_params(sides, ends, len(shapes), parameters, sizes, builder)
    described = [end.desc for end in ends]
    kernel, ptx = plugin.get_kernel(described[: len(shapes)], described[len(shapes) :])
    values = {each: value.expr.value for each, value in vars(parameters).items()}
    assert (values["block_y"], values["block_z"]) == (1, 1)
    return Launch(
        kernel,
        ptx.decode(),
        (values["grid_x"], values["grid_y"], values["grid_z"]),
        values["block_x"],
        values["shared_mem"],
        tuple(each.expr.value for each in sizes.expressions),
        tuple(outputs),
        tuple(each.format.name for each in combination),
        tuple(each.type.name for each in combination),
    )


class Sizes:
    """Takes the expressions of the sizes that a kernel is passed."""

    nbSymExprs = 0

    def __init__(self) -> None:
        self.expressions: list[Any] = []

    def __setitem__(self, index: int, expression: Any) -> None:
        assert index == len(self.expressions) < self.nbSymExprs
        self.expressions.append(expression)
