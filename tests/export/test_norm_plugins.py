"""Norms of this project inside a TensorRT engine: the graph, the kernels, and what TensorRT is told of them.

No engine of TensorRT's can be built without a GPU. NVIDIA's own `tensorrt.plugin` is asked here as TensorRT asks it;
what it hands over is compiled to machine code, and the kernels run in Triton's interpreter.
"""

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cyclegan_fast.kernels import triton_language
from cyclegan_fast.system.errors import UserError
from export.engines.layers import layers_of, require_layers
from export.engines.libraries import Library, load_library
from export.graphs.graph import finished
from export.graphs.plugin_nodes import with_norm_plugins
from export.graphs.precision import in_precision
from export.plugins.compiled_kernel import without_scratch, without_source_lines
from export.plugins.engine_graph import check_norms, engine_graph
from export.plugins.node_names import DOMAIN
from tests.export.fake_trt_plugins import plugin_module

if TYPE_CHECKING:
    from onnx import ModelProto

ROOT = Path(__file__).parents[2]
USUAL, LARGEST = (1, 32, 32), (2, 64, 64)

# --- the graph -------------------------------------------------------------------------------------------------------


class NormStatistics(OpRun):  # type: ignore[misc]  # onnx's class is untyped
    """Defines the statistics of splits in NumPy: count, mean and M2, the mean about 0."""

    op_domain = DOMAIN

    def _run(self, x: Any, pixels_per_program: int, **_: Any) -> tuple[Any]:
        planes = x.astype(np.float64).reshape(*x.shape[:2], -1)
        parts = [
            planes[..., start : start + pixels_per_program] for start in range(0, planes.shape[2], pixels_per_program)
        ]
        return (
            np.stack(
                [
                    np.stack([np.full(x.shape[:2], part.shape[2]), part.mean(2), part.var(2) * part.shape[2]], 1)
                    for part in parts
                ],
                1,
            ),
        )


def normalised(x: Any, partials: Any, activation: str, pad: int, epsilon: str, to: str) -> tuple[Any, Any]:
    count, means, m2 = (partials[:, :, index] for index in range(3))
    mean = (count * means).sum(1) / count.sum(1)
    variance = (m2 + count * (means - mean[:, None]) ** 2).sum(1) / count.sum(1)
    rstd = 1 / np.sqrt(variance + float(epsilon))
    y = (x.astype(np.float64) - mean[..., None, None]) * rstd[..., None, None]
    return (np.maximum(y, 0) if activation == "relu" else y), np.stack([mean, 0 * mean, rstd], 1)


def padded(y: Any, pad: int, to: str) -> Any:
    return np.pad(y, ((0, 0), (0, 0), (pad, pad), (pad, pad)), "reflect").astype(to)


class NormApply(OpRun):  # type: ignore[misc]
    op_domain = DOMAIN

    def _run(self, x: Any, partials: Any, **given: Any) -> tuple[Any, Any]:
        norm = {name: given[name] for name in ("activation", "pad", "epsilon", "to")}
        y, statistics = normalised(x, partials, **norm)
        return padded(y, norm["pad"], norm["to"]), statistics


class NormApplyResidual(OpRun):  # type: ignore[misc]
    op_domain = DOMAIN

    def _run(self, x: Any, partials: Any, residual: Any, **given: Any) -> tuple[Any, Any]:
        norm = {name: given[name] for name in ("activation", "pad", "epsilon", "to")}
        y, statistics = normalised(x, partials, **norm)
        return padded(y + residual, norm["pad"], norm["to"]), statistics


def test_a_graph_of_plugins_computes_what_the_graph_of_norms_does(graph: "ModelProto") -> None:
    import onnxruntime

    changed = with_norm_plugins(graph, USUAL, LARGEST, 90)
    evaluator = ReferenceEvaluator(changed, new_ops=[NormStatistics, NormApply, NormApplyResidual])
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 32, 32), (2, 3, 20, 28)):
        image = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
        (expected,) = session.run(None, {"image": image})
        (found,) = evaluator.run(None, {"image": image})
        assert np.abs(found - expected).max() < 2e-5


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_every_norm_becomes_two_plugins(graph: "ModelProto", precision: Any) -> None:
    typed = graph if precision == "float32" else in_precision(graph, precision)
    before = Counter(node.op_type for node in typed.graph.node)
    changed = with_norm_plugins(typed, USUAL, LARGEST, 90)
    after = Counter(node.op_type for node in changed.graph.node)
    # 5 norms outside of the 9 blocks, whose second norms have a residual.
    assert (after["NormStatistics"], after["NormApply"], after["NormApplyResidual"]) == (23, 14, 9)
    assert not after.keys() & {"InstanceNormalization", "Relu", "Add"}
    # Of the pads stay those in front of the stem and of the first convolutions of blocks, which the sums need too.
    assert (before["Pad"], after["Pad"]) == (20, 10)
    assert after["Cast"] == (0 if precision == "float32" else 2), "from the image, and in front of tanh"
    made = {output for node in changed.graph.node for output in node.output}
    weights = {tensor.name for tensor in changed.graph.initializer}
    read = {name for node in changed.graph.node for name in node.input}
    assert read <= made | weights | {"image"}
    assert weights <= read
    types = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
    names = {"float32": 1, "float16": 10, "bfloat16": 16}
    for node in changed.graph.node:
        if node.op_type.startswith("NormApply"):
            given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            assert types[node.output[0]] == names[given["to"].decode()]
            assert given["epsilon"] == b"1e-05"
            assert given["plugin_namespace"] == DOMAIN.encode()


def network_of_width(channels: int) -> "ModelProto":
    """Make a graph of one convolution and its norm, by hand."""
    make = onnx.helper.make_node
    image, translated = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", sides, "height", "width"])
        for name, sides in (("image", 3), ("translated", channels))
    )
    weights = {"stem.weight": np.ones((channels, 3, 1, 1)), "scale": np.ones(channels), "bias": np.zeros(channels)}
    nodes = [
        make("Conv", ["image", "stem.weight"], ["stem"], name="stem"),
        make("InstanceNormalization", ["stem", "scale", "bias"], ["stem.norm"], name="stem.norm", epsilon=1e-5),
        make("Tanh", ["stem.norm"], ["translated"], name="tanh"),
    ]
    constants = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    return finished(onnx.helper.make_graph(nodes, "generator", [image], [translated], constants), 20)


def test_norms_that_the_kernels_do_not_compute_are_refused() -> None:
    with pytest.raises(UserError, match=r"needs channels in multiples of 8, and stem\.norm has 6") as error:
        with_norm_plugins(network_of_width(6), USUAL, LARGEST, 90)
    assert "\n" not in str(error.value)
    with pytest.raises(
        UserError, match=r"up to 2.31 elements in a layer, and stem.norm has more at 32768x16384 pixels"
    ):
        with_norm_plugins(network_of_width(8), USUAL, (1, 1 << 14, 1 << 15), 90)
    scaled = network_of_width(8)
    norm = next(node for node in scaled.graph.node if node.op_type == "InstanceNormalization")
    (scale,) = (tensor for tensor in scaled.graph.initializer if tensor.name == norm.input[1])
    scale.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(scale), scale.name))
    with pytest.raises(UserError, match="has a scale and a bias"):
        with_norm_plugins(scaled, USUAL, LARGEST, 90)


# --- the kernels -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not triton_language.INTERPRETED, reason="a GPU's kernels are checked by python -m kernels.check")
@pytest.mark.parametrize(("activation", "pad", "has_residual"), [("relu", 3, False), ("none", 1, True)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_entries_compute_the_norm(activation: Any, pad: int, has_residual: bool, dtype: torch.dtype) -> None:
    from cyclegan_fast.kernels.instance_norm import instance_norm_reference
    from export.plugins import norm_entries

    torch.manual_seed(0)
    batch, height, width, channels, pixels = 2, 9, 11, 24, 32
    x, residual = (torch.randn(batch, height, width, channels).add(3).to(dtype) for _ in range(2))
    splits = -(-height * width // pixels)
    partials = torch.full((batch, splits, 3, channels), torch.nan)
    statistics = torch.full((batch, 3, channels), torch.nan)
    y = torch.full((batch, height + 2 * pad, width + 2 * pad, channels), torch.nan, dtype=dtype)
    tile = {"CHANNELS": channels, "PIXELS_PER_PROGRAM": pixels, "BLOCK_PIXELS": 16, "BLOCK_CHANNELS": 16}
    norm_entries.plugin_norm_statistics[(splits, 2, batch)](x, height, width, splits, partials, **tile)
    norm = {**tile, "ACTIVATION": activation, "PAD": pad, "EPS": 1e-5}
    programs = -(-y.shape[1] * y.shape[2] // pixels)
    if has_residual:
        norm_entries.plugin_norm_apply_residual[(programs, 2, batch)](
            x, partials, residual, height, width, splits, y, statistics, **norm
        )
    else:
        norm_entries.plugin_norm_apply[(programs, 2, batch)](x, partials, height, width, splits, y, statistics, **norm)
    first = (0, 3, 1, 2)
    expected = instance_norm_reference(
        x.double().permute(first),
        activation=activation,
        negative_slope=0.0,
        residual=residual.double().permute(first) if has_residual else None,
        pad=pad,
        eps=1e-5,
    )
    assert torch.isfinite(statistics).all()
    rounding = 0.5 * torch.finfo(dtype).eps
    assert ((y.double().permute(first) - expected).abs() <= rounding * expected.abs() + 1e-5).all()


# --- what TensorRT is told -------------------------------------------------------------------------------------------

IN_ANOTHER_PROCESS = """
import json, re, subprocess, sys, tempfile
from pathlib import Path
import pytest, triton
from export.engines.libraries import Library
from export.plugins.norm_plugins import register_norm_plugins
from tests.export.fake_trt_plugins import launched, plugin_module

patch = pytest.MonkeyPatch()
trt = plugin_module(patch)
register_norm_plugins(Library(trt, "tensorrt", trt.__version__), 90)
register_norm_plugins(Library(trt, "tensorrt", trt.__version__), 90)  # a second engine in the same process
half, single = trt.DataType.HALF, trt.DataType.FLOAT
tile = dict(channels=64, pixels_per_program=1024, block_pixels=32, block_channels=32, num_warps=8, maxnreg=128)
norm = tile | dict(activation="relu", pad=1, epsilon="1e-05", to="float16")
images, partials = (2, 64, 65, 60), (2, 4, 3, 64)
for name, attributes, shapes, types in (
    ("NormStatistics", tile, [images], [half]),
    ("NormApply", norm, [images, partials], [half, single]),
    ("NormApplyResidual", norm | dict(pad=0, to="bfloat16\\0"), [images, partials, images], [half, single, half]),
    ("NormStatistics", tile, [images], [single]),
):
    launch = launched(trt, f"cyclegan_fast::{name}", attributes, shapes, types)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.ptx")
        path.write_text(launch.ptx)
        assembler = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
        subprocess.run([assembler, "-arch=sm_90a", path, "-o", Path(folder, "x.cubin")], check=True)
    assert not re.search(r"[.]py|/", re.sub(r"//.*", "", launch.ptx)), "tells where it was built"
    described = vars(launch) | {"parameters": len(re.findall(r"[.]param [.]", launch.ptx))}
    del described["ptx"]
    print(json.dumps(described))
"""


def test_what_nvidias_package_hands_to_tensorrt() -> None:
    with pytest.MonkeyPatch.context() as patch:
        plugin_module(patch)  # skips where it is not installed
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stderr
    statistics, apply, residual, wide = (json.loads(line) for line in ended.stdout.splitlines() if line[0] == "{")
    # 65 * 60 pixels in splits of 1024, 64 channels in blocks of 32, 2 images.
    assert (statistics["grid"], statistics["sizes"]) == ([4, 2, 2], [65, 60, 4])
    assert (statistics["shapes"], statistics["threads"]) == ([[2, 4, 3, 64]], 256)
    assert (statistics["formats"], statistics["types"]) == (["HWC8", "LINEAR"], ["HALF", "FLOAT"])
    assert statistics["parameters"] == 1 + 3 + 1
    # 67 * 62 pixels of the padded result.
    assert (apply["grid"], apply["sizes"]) == ([5, 2, 2], [65, 60, 4])
    assert apply["shapes"] == [[2, 64, 67, 62], [2, 3, 64]]
    assert apply["formats"] == ["HWC8", "LINEAR", "HWC8", "LINEAR"]
    assert apply["parameters"] == 2 + 3 + 2
    assert (residual["grid"], residual["shapes"][0]) == ([4, 2, 2], [2, 64, 65, 60])
    assert residual["types"] == ["HALF", "FLOAT", "HALF", "BF16", "FLOAT"]
    assert residual["formats"] == ["HWC8", "LINEAR", "HWC8", "HWC8", "LINEAR"]
    assert residual["parameters"] == 3 + 3 + 2
    assert wide["formats"] == ["HWC", "LINEAR"], "of 32 bits TensorRT has no channels in eights"


PTX = """\
.visible .entry norm(
\t.param .u64 .ptr .global .align 1 norm_param_0,
\t.param .u32 norm_param_1,
\t.param .u64 .ptr .global .align 1 norm_param_2,
\t.param .u64 .ptr .global .align 1 norm_param_3
)
{
\t.loc\t1 12 0                          // norm.py:12:0
\tld.param.b64 \t%rd5, [norm_param_0];
}
\t.file\t1 "/home/someone/norm.py"
"""


def test_scratch_memory_and_source_lines_are_left_out() -> None:
    plain = without_source_lines(PTX)
    assert "norm.py" not in plain
    assert without_scratch(plain, "norm", 2).splitlines() == [
        ".visible .entry norm(",
        "\t.param .u64 .ptr .global .align 1 norm_param_0,",
        "\t.param .u32 norm_param_1",
        ")",
        "{",
        "\tld.param.b64 \t%rd5, [norm_param_0];",
        "}",
    ]
    with pytest.raises(ValueError, match="norm must have the parameters"):
        without_scratch(plain, "norm", 3)
    with pytest.raises(ValueError, match="norm uses the scratch memory norm_param_2"):
        without_scratch(plain.replace("[norm_param_0]", "[norm_param_2]"), "norm", 2)


# --- engines ---------------------------------------------------------------------------------------------------------


PARSED_BY_RTX = """
import onnx
import tensorrt_rtx as trt

class Creator(trt.IPluginCreatorV3Quick):
    def __init__(self):
        trt.IPluginCreatorV3Quick.__init__(self)
        self.name, self.plugin_namespace, self.plugin_version = "NormTwice", "cyclegan_fast", "1"
        self.field_names = trt.PluginFieldCollection([])

node = onnx.helper.make_node("NormTwice", ["x"], ["y"], domain="cyclegan_fast", plugin_namespace="cyclegan_fast")
x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8, 16, 16]) for name in "xy")
model = onnx.helper.make_model(
    onnx.helper.make_graph([node], "one", [x], [y]),
    opset_imports=[onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("cyclegan_fast", 1)],
)
creator, logger = Creator(), trt.Logger(trt.Logger.INTERNAL_ERROR)
assert trt.get_plugin_registry().register_creator(creator, "cyclegan_fast")
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
print(parser.parse(model.SerializeToString()), parser.get_error(0).desc())
"""


def test_tensorrt_for_rtx_takes_no_compiled_kernels() -> None:
    """Fails with the release of TensorRT for RTX that does: `plugin_package` then has one to return."""
    library = load_library("tensorrt_rtx")
    with pytest.raises(UserError, match=r"needs --runtime tensorrt.* takes no plugins of compiled kernels"):
        check_norms("triton", library, "float16")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'tensorrt_rtx_bindings\.plugin'"):
        importlib.import_module("tensorrt_rtx.plugin")
    assert not [name for name in dir(library.module.INetworkDefinition) if "add_plugin" in name]
    ended = subprocess.run([sys.executable, "-c", PARSED_BY_RTX], capture_output=True, text=True, timeout=300)
    assert ended.stdout.startswith("False "), ended.stderr
    assert "imports IPluginV3 plugins registered with an IPluginCreatorV3One creator only" in ended.stdout


def test_what_cannot_hold_the_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    trt = plugin_module(monkeypatch)
    with pytest.raises(UserError, match="float32, float16 and bfloat16, not with int8"):
        check_norms("triton", Library(trt, "tensorrt", "11.4.0"), "int8")
    check_norms("library", Library(None, "tensorrt_rtx", "1.7.1"), "int8")
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", None)
    with pytest.raises(UserError, match=r"needs TensorRT 10.9 or later, and this is tensorrt 10.0 \(.*tensorrt.plugin"):
        check_norms("triton", Library(trt, "tensorrt", "10.0"), "float16")


def test_the_graph_of_an_engine(graph: "ModelProto", monkeypatch: pytest.MonkeyPatch) -> None:
    from export.engines.engine_card import Profile
    from export.plugins import engine_graph as module, norm_plugins

    monkeypatch.setattr(norm_plugins, "_capabilities", {})
    monkeypatch.setattr(module, "capability_here", lambda: 89)
    library = Library(plugin_module(monkeypatch), "tensorrt", "11.4.0")
    profile = Profile((1, 32, 32), (1, 64, 64), (4, 128, 128))
    assert engine_graph("library", library, graph, b"as it is", profile) == (b"as it is", [])
    content, names = engine_graph("triton", library, graph, b"", profile)
    assert len(names) == 2 * 23
    registered = sys.modules["tensorrt.plugin._lib"].QDP_REGISTRY  # type: ignore[attr-defined]  # NVIDIA's
    for node in onnx.ModelProto.FromString(content).graph.node:
        if node.domain == DOMAIN:
            definition = registered[f"{DOMAIN}::{node.op_type}"]
            given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            assert (given.pop("plugin_namespace"), given.pop("aot")) == (DOMAIN.encode(), 1)
            assert {name: str if isinstance(value, bytes) else type(value) for name, value in given.items()} == (
                definition.input_attrs
            )
            assert len(node.input) == len(definition.input_tensor_names)
            assert len(node.output) == definition.num_outputs


@pytest.mark.parametrize("verbose", [True, False])
def test_layers_are_read_from_the_engine(verbose: bool) -> None:
    names = ["stem", "stem.norm.partials", "{ForeignNode[stem.norm.apply + down.0]}"]

    class Runtime:
        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            layers = [{"Name": name, "LayerType": "Plugin"} for name in names] if verbose else names
            inspector = SimpleNamespace(
                get_engine_information=lambda kind: json.dumps({"Layers": layers, "Bindings": []})
            )
            return SimpleNamespace(create_engine_inspector=lambda: inspector) if content == b"good" else None

    class ILogger:
        def __init__(self) -> None:
            pass

    module = ModuleType("tensorrt")
    module.__dict__.update(Runtime=Runtime, ILogger=ILogger, LayerInformationFormat=SimpleNamespace(JSON=object()))
    library = Library(module, "tensorrt", f"11.4.{verbose}")
    assert layers_of(library, b"good") == names
    require_layers(library, b"good", ["stem.norm.partials", "stem.norm.apply"])
    require_layers(library, b"bad", [])
    with pytest.raises(UserError, match=r"of 3 layers in the engine none is up.0.norm.apply \(1 such\): tensorrt 11.4"):
        require_layers(library, b"good", ["stem.norm.apply", "up.0.norm.apply"])
    with pytest.raises(UserError, match="the engine's layers cannot be read: the library did not say why"):
        layers_of(library, b"bad")
