"""Exported graphs: their operators and types, their values in ONNX Runtime, their bytes."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto

from cyclegan_fast.checkpoint.original import to_original
from cyclegan_fast.config.options import Norm, Upsampling
from cyclegan_fast.images.pixels import to_pixels_array, to_signed_array
from cyclegan_fast.networks.norms import batch_norms
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.files import sha256_of
from cyclegan_fast.version import __version__
from export import source, to_onnx, verify
from export.graphs.graph import serialised
from export.graphs.precision import BFLOAT16, FLOAT16, FLOAT32, emulated, in_precision
from export.options import Precision
from export.parity import BARS, Parity, in_onnxruntime, in_pytorch
from export.pictures import photographs
from export.source import load_sources
from export.to_onnx import float32_graph

ROOT = Path(__file__).parents[2]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
PAPER = {"Conv": 22, "ConvTranspose": 2, "InstanceNormalization": 23, "Relu": 14, "Pad": 20, "Add": 9, "Tanh": 1}


def typed(graph: ModelProto, precision: Precision) -> ModelProto:
    return graph if precision == "float32" else in_precision(graph, precision)


def runnable(model: ModelProto) -> bytes:
    is_bfloat16 = any(value.type.tensor_type.elem_type == BFLOAT16 for value in model.graph.value_info)
    return serialised(emulated(model) if is_bfloat16 else model)


# --- operators and types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_graph_has_the_paper_s_layers_and_nothing_else_but_casts(graph: ModelProto, precision: Precision) -> None:
    operators = Counter(node.op_type for node in typed(graph, precision).graph.node)
    casts = operators.pop("Cast", 0)
    assert operators == PAPER
    # Before the first pad, behind each of 24 convolutions, before each convolution's input (23) and each sum (9).
    assert casts == (0 if precision == "float32" else 1 + 24 + 23 + 9)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_convolutions_alone_are_in_low_precision(graph: ModelProto, precision: Precision) -> None:
    model = typed(graph, precision)
    types = {value.name: value.type.tensor_type.elem_type for value in [*model.graph.value_info, *model.graph.output]}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    low = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}[precision]
    transposed = low if precision == "float32" else FLOAT16
    for node in model.graph.node:
        expected = {"Conv": low, "ConvTranspose": transposed, "Pad": low}.get(node.op_type, FLOAT32)
        if node.op_type == "Cast":
            assert types[node.output[0]] != types.get(node.input[0], FLOAT32), f"{node.name} changes nothing"
            continue
        assert types[node.output[0]] == expected, node.name
        for tensor in node.input:
            if types.get(tensor) not in (None, TensorProto.INT64):
                assert types[tensor] == expected, (node.name, tensor)


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_input_and_output_have_the_promised_names_types_and_free_sizes(
    weights: Path, precision: Precision, pixels: bool
) -> None:
    (generator,) = load_sources(weights, "both", [])
    model = to_onnx.to_onnx(generator, precision, uint8_io=pixels)
    for value, name in ((model.graph.input[0], "image"), (model.graph.output[0], "translated")):
        assert value.name == name
        assert value.type.tensor_type.elem_type == (TensorProto.UINT8 if pixels else TensorProto.FLOAT)
        sides = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert sides == (["batch", "height", "width", 3] if pixels else ["batch", 3, "height", "width"])
    assert model.opset_import[0].version == (22 if precision == "bfloat16" else 20)
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "cyclegan_fast_format": f"1 by {__version__}",  # 2 only where pages or slices are given
        "direction": "one way",
        "precision": precision,
        "range": "0 to 255" if pixels else "-1 to 1",
        "checkpoint_sha256": sha256_of(weights),
    }


def test_layers_are_called_as_in_the_network(graph: ModelProto, random_generator: ResnetGenerator) -> None:
    convolutions = [node.name for node in graph.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    modules = [name for name, module in random_generator.named_modules() if hasattr(module, "weight")]
    assert sorted(convolutions) == sorted(modules)
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"blocks.3.conv1.pad", "blocks.3.conv1.norm", "blocks.3.conv1.relu", "blocks.3.conv2.sum"} <= set(names)


def test_a_weight_beyond_the_range_of_float16_is_refused(random_generator: ResnetGenerator) -> None:
    large = ResnetGenerator(width=8, blocks=9)
    large.load_state_dict(random_generator.state_dict())
    with torch.no_grad():
        large.down[1].weight[0, 0, 0, 0] = 7e4
    with pytest.raises(source.UserError, match=r"down\.1\.weight has values up to 7e\+04, beyond the range of float16"):
        in_precision(float32_graph(large), "float16")
    in_precision(float32_graph(large), "bfloat16")


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "shape"),
    [(precision, shape) for precision in PRECISIONS for shape in [(1, 64, 64), (3, 40, 68), (2, 32, 32)]]
    # In low precision there is no bar at the smallest size: a norm of 2x2 planes makes its rounding as large as itself.
    + [("float32", (2, 8, 8))],
)
def test_random_weights_keep_their_parity_at_any_size(
    graph: ModelProto, random_generator: ResnetGenerator, precision: Precision, shape: tuple[int, int, int]
) -> None:
    pixels = photographs(*shape)
    expected = in_pytorch(random_generator, pixels)
    parity = Parity.between(in_onnxruntime(runnable(typed(graph, precision)), pixels), expected)
    print(f"{precision} {shape}: {parity}")
    assert BARS[precision].failure(parity) is None
    if precision != "float32":
        assert parity.largest > 0.01, "it was computed in float32"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trained_network_keeps_its_parity(trained_run: Path, precision: Precision) -> None:
    for generator in load_sources(trained_run, "both", []):
        pixels = photographs(3, 64, 80)
        expected = in_pytorch(generator.network, pixels)
        assert expected.std() > 10, "a flat picture would prove nothing"
        parity = Parity.between(in_onnxruntime(runnable(to_onnx.to_onnx(generator, precision)), pixels), expected)
        print(f"trained {generator.direction} {precision}: {parity}")
        assert BARS[precision].failure(parity) is None


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_pixels_in_and_out_are_python_s_conversions_exactly(weights: Path, precision: Precision) -> None:
    import onnxruntime

    (generator,) = load_sources(weights, "both", [])
    plain, pixel = (
        onnxruntime.InferenceSession(serialised(to_onnx.to_onnx(generator, precision, uint8_io=uint8_io)))
        for uint8_io in (False, True)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
    (signed,) = plain.run(None, {"image": to_signed_array(pixels)})
    (found,) = pixel.run(None, {"image": pixels})
    assert found.dtype == np.uint8
    assert np.array_equal(found, to_pixels_array(signed))


def test_the_emulation_rounds_as_bfloat16_does(graph: ModelProto, random_generator: ResnetGenerator) -> None:
    """Against PyTorch's own bfloat16, on a graph of one convolution, bit for bit where sums are exact."""
    torch.manual_seed(0)
    x = torch.randint(-8, 8, (1, 3, 8, 8)).float()
    weight = torch.randint(-8, 8, (2, 3, 3, 3)).float() / 8 + 1 / 512  # which rounds
    node = onnx.helper.make_node("Conv", ["image", "layer.weight"], ["translated"], name="layer")
    tensors = [onnx.numpy_helper.from_array(weight.numpy(), "layer.weight")]
    info = [
        onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c", "h", "w"])
        for name in ("image", "translated")
    ]
    identity = onnx.helper.make_node("Relu", ["positive"], ["translated"], name="layer.relu")
    node.output[0] = "positive"
    one = onnx.helper.make_graph([node, identity], "one", [info[0]], [info[1]], tensors)
    model = in_precision(onnx.helper.make_model(one), "bfloat16")
    import onnxruntime

    (found,) = onnxruntime.InferenceSession(serialised(emulated(model))).run(None, {"image": x.numpy()})
    exact = torch.nn.functional.conv2d(x.bfloat16().double(), weight.bfloat16().double())
    assert np.array_equal(found, exact.relu().bfloat16().float().numpy())


# --- bytes and the command -------------------------------------------------------------------------------------------


def run(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "export" / "to_onnx.py"), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_the_same_checkpoint_gives_the_same_bytes_from_any_folder_and_says_nothing_of_it(
    tmp_path: Path, weights: Path
) -> None:
    contents = []
    for name in ("one", "another/and deeper"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        copy = folder / "latest_net_G.pth"
        copy.write_bytes(weights.read_bytes())
        ended = run("--checkpoint", "latest_net_G.pth", "--precision", "float16", "--out", "out", cwd=folder)
        assert ended.returncode == 0, ended.stderr
        waited = re.compile(r"exporting latest_net_G-float16\.onnx: \d+:\d+")  # on a slow machine
        assert [line for line in ended.stderr.splitlines() if not waited.fullmatch(line)] == []
        contents.append((folder / "out" / "latest_net_G-float16.onnx").read_bytes())
    assert contents[0] == contents[1]
    for trace in (str(ROOT), "cyclegan_fast/", "networks.py", "aten", "torch"):
        assert trace.encode() not in contents[0]


def test_both_directions_of_the_newest_run_are_exported_by_default(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(trained_run.parent)
    assert to_onnx.main([]) == 0
    names = sorted(path.name for path in (tmp_path / "engines").iterdir())
    assert names == ["demo-a2b-float16.onnx", "demo-b2a-float16.onnx"]
    assert capsys.readouterr().out.count(".onnx: ") == 2
    one, other = ((tmp_path / "engines" / name).read_bytes() for name in names)
    assert one != other


# --- what is refused -------------------------------------------------------------------------------------------------


def nan_weights(path: Path, network: ResnetGenerator) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["down.0.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, path)


def another_architecture(path: Path, network: ResnetGenerator) -> None:
    torch.save({"layers.0.weight": torch.zeros(4, 3, 4, 4)}, path)


def cut_off(path: Path, network: ResnetGenerator) -> None:
    torch.save(network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan_weights, "holds weights that are infinite or NaN (down.0.weight)"),
        (another_architecture, "holds no generator"),
        (cut_off, "is cut off or damaged"),
    ],
)
def test_bad_checkpoints_are_refused_before_anything_is_written(
    spoil: Callable[[Path, ResnetGenerator], None],
    reason: str,
    random_generator: ResnetGenerator,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(tmp_path / "x.pth", random_generator)
    assert to_onnx.main(["--checkpoint", str(tmp_path / "x.pth"), "--out", str(tmp_path / "out")]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_run_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert to_onnx.main([]) == 2
    assert capsys.readouterr().err == (
        "error: no run with a checkpoint under runs: train one, or give --checkpoint FILE\n"
    )


# --- other norms -----------------------------------------------------------------------------------------------------


def of_norm(norm: Norm, upsampling: Upsampling = "transposed") -> ResnetGenerator:
    """Return a generator of two blocks with random weights, scales, shifts, and running statistics of three batches."""
    torch.manual_seed(0)
    network = ResnetGenerator(width=4, blocks=2, norm=norm, upsampling=upsampling)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.15)
    for module in batch_norms(network):
        torch.nn.init.normal_(module.weight, 1.0, 0.3)
    for _ in range(3):
        network(torch.rand(2, 3, 16, 16) * 2 - 1)
    return network.eval()


@pytest.mark.parametrize(
    ("norm", "running"), [("none", False), ("batch", False), ("batch", True)], ids=["none", "batch", "running"]
)
def test_other_norms_are_exported_as_they_translate(norm: Norm, running: bool, tmp_path: Path) -> None:
    """Batch norm by each image's statistics is an instance norm with parameters; by running ones it is folded away."""
    network = of_norm(norm)
    torch.save(to_original(network.state_dict()), path := tmp_path / "G.pth")
    (loaded,) = load_sources(path, "both", [], running_statistics=running)
    pixels = photographs(2, 24, 32)
    by_image = in_pytorch(network, pixels)
    expected = in_pytorch(loaded.network, pixels)
    assert np.abs(expected - by_image).max() == 0 if not running else np.abs(expected - by_image).max() > 5
    graph = float32_graph(loaded.network)
    norms = Counter(node.op_type for node in graph.graph.node)["InstanceNormalization"]
    assert norms == (9 if norm == "batch" and not running else 0)
    for precision in PRECISIONS:
        parity = Parity.between(in_onnxruntime(runnable(typed(graph, precision)), pixels), expected)
        assert BARS[precision].failure(parity) is None, (precision, str(parity))
    convolutions = [node.name for node in graph.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    source.check_layers(loaded.network, convolutions[:-1])


@pytest.mark.parametrize(("norm", "running"), [("instance", False), ("batch", True)], ids=["instance", "running"])
def test_a_generator_that_resizes_is_exported_as_it_translates(norm: Norm, running: bool, tmp_path: Path) -> None:
    torch.save(of_norm(norm, "resize").state_dict(), path := tmp_path / "G.pth")
    (loaded,) = load_sources(path, "both", [], running_statistics=running)
    pixels = photographs(2, 24, 32)
    expected = in_pytorch(loaded.network, pixels)
    graph = float32_graph(loaded.network)
    layers = Counter(node.op_type for node in graph.graph.node)
    assert (layers["Resize"], layers["Conv"], layers["ConvTranspose"]) == (2, 10, 0)
    for precision in PRECISIONS:
        parity = Parity.between(in_onnxruntime(runnable(typed(graph, precision)), pixels), expected)
        assert BARS[precision].failure(parity) is None, (precision, str(parity))


def test_running_statistics_have_a_file_of_their_own_and_verify_knows_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"netG_A2B": to_original(of_norm("batch").state_dict())}, path := tmp_path / "G.pth")
    fixed = ["--checkpoint", str(path), "--precision", "float32", "--out", str(tmp_path)]
    for more in ([], ["--running-statistics"]):
        assert to_onnx.main([*fixed, *more]) == 0
    file = tmp_path / "G-running-statistics-float32.onnx"
    assert file.exists()
    assert (tmp_path / "G-float32.onnx").exists()
    compare = ["--onnx", str(file), "--checkpoint", str(path), "--size", "24"]
    assert verify.main([*compare, "--running-statistics"]) == 0
    assert verify.main(compare) == 1
    assert "error" in capsys.readouterr().err
