"""INT8 and FP8: the graph, its ranges, its values in ONNX Runtime, and what a user is told where it falls short."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cyclegan_fast.data.sample_photos import make_test, make_training
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from export import to_onnx, verify
from export.graphs.graph import readers_of, serialised
from export.graphs.precision import FLOAT16
from export.graphs.quantisation import FORMATS, activation_ranges, largest_activations, quantised, ranges_of
from export.options import EightBits, ExportOptions
from export.parity import BARS, Bar, Parity, in_onnxruntime, in_pytorch
from export.pictures import CALIBRATED, of_domain, photographs, pictures_for
from export.sensitivity import by_layer, to_keep
from export.source import load_sources
from export.to_onnx import as_asked, float32_graph
from tests.export.test_to_onnx import PAPER, of_norm

PRECISIONS: tuple[EightBits, ...] = ("int8", "fp8")
STORED = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}


@pytest.fixture(scope="module")
def ranges(graph: ModelProto) -> dict[str, float]:
    return activation_ranges(graph, photographs(4, 32, 32), "int8")


# --- the graph -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_convolution_but_those_kept_stands_between_two_nodes_of_8_bits(
    graph: ModelProto, ranges: dict[str, float], precision: EightBits
) -> None:
    keep = ["head", "blocks.3.conv1"]
    model = quantised(graph, precision, ranges, keep)
    operators = Counter(node.op_type for node in model.graph.node)
    assert operators.pop("QuantizeLinear") == 24 - 2
    assert operators.pop("DequantizeLinear") == 2 * (24 - 2)
    assert operators.pop("Cast") == 1 + 24 + 23 + 9  # those of float16
    assert operators == PAPER
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            assert types[node.output[0]] == FLOAT16
            for tensor in node.input[:2]:
                assert types[tensor] == FLOAT16
                is_rounded = tensor in makers and makers[tensor].op_type == "DequantizeLinear"
                assert is_rounded == (node.name not in keep), node.name
                assert not is_rounded or types[makers[tensor].input[0]] == STORED[precision]
        elif node.op_type == "InstanceNormalization":
            assert types[node.output[0]] == TensorProto.FLOAT
    # TensorRT takes no zero points but zero.
    zeros = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".zero")]
    assert len(zeros) == 2 * 22
    assert not any(numpy_helper.to_array(tensor).astype(float).any() for tensor in zeros)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_have_a_scale_for_each_output_channel_and_are_off_by_half_a_step_at_most(
    graph: ModelProto, ranges: dict[str, float], precision: EightBits
) -> None:
    model = quantised(graph, precision, ranges)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    exact = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for layer, axis in (("blocks.0.conv1", 0), ("up.0", 1), ("head", 0)):
        weight, scale = exact[f"{layer}.weight"], tensors[f"{layer}.weight.scale"].astype(np.float64)
        assert scale.shape == (weight.shape[axis],)
        steps = scale.reshape([-1 if place == axis else 1 for place in range(4)])
        error = np.abs(tensors[f"{layer}.weight"].astype(np.float64) * steps - weight)
        # FP8 has 3 bits behind the leading one: half a step is a sixteenth of the value, or of the smallest normal one.
        allowed = steps / 2 if precision == "int8" else np.maximum(np.abs(weight) / 16, steps * 2.0**-10)
        assert (error <= allowed * 1.001 + steps * FORMATS[precision].largest * 2.0**-11).all()  # float16 scales
        others = tuple(place for place in range(4) if place != axis)
        stored = np.abs(tensors[f"{layer}.weight"].astype(np.float64)).max(axis=others)
        assert (stored >= FORMATS[precision].largest * 0.99).all(), "the range is used"


# --- ranges ----------------------------------------------------------------------------------------------------------


def test_the_range_of_an_input_is_where_its_error_is_least(graph: ModelProto) -> None:
    """Against a search of its own over every activation, not over a histogram."""
    import onnxruntime

    pixels = photographs(2, 32, 32)
    (layer, tensor) = next((n.name, n.input[0]) for n in graph.graph.node if n.name == "blocks.8.conv2")
    observed = ModelProto()
    observed.CopyFrom(graph)
    observed.graph.output.extend(value for value in graph.graph.value_info if value.name == tensor)
    session = onnxruntime.InferenceSession(serialised(observed))
    x = np.concatenate([session.run([tensor], {"image": to_signed(one)})[0].ravel() for one in pixels]).astype(float)

    def error(bound: float) -> float:
        step = bound / 127
        return float(((np.clip(np.rint(x / step), -127, 127) * step - x) ** 2).mean())

    found = activation_ranges(graph, pixels, "int8")[layer]
    largest = float(np.abs(x).max())
    assert largest_activations(graph, pixels)[layer] == pytest.approx(largest)
    assert found < largest, "outliers are cut off"
    assert error(found) <= 1.01 * min(error(largest * share / 50) for share in range(5, 51))


def to_signed(pixels: Any) -> Any:
    return (pixels[None].transpose(0, 3, 1, 2) / np.float32(127.5) - 1).astype(np.float32)


def test_the_largest_value_is_kept_where_steps_are_relative(graph: ModelProto) -> None:
    pixels = photographs(2, 32, 32)
    assert activation_ranges(graph, pixels, "fp8") == largest_activations(graph, pixels)


def test_ranges_are_read_back_from_a_graph(graph: ModelProto, ranges: dict[str, float]) -> None:
    back = ranges_of(quantised(graph, "int8", ranges, ["head"]), "int8")
    assert back.keys() == ranges.keys() - {"head"}
    assert back == pytest.approx({layer: ranges[layer] for layer in back}, rel=1e-3)


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trained_network_keeps_its_parity_in_8_bits(trained_run: Path, precision: EightBits) -> None:
    for source in load_sources(trained_run, "both", []):
        options = ExportOptions(precision=precision)
        calibration, compared = pictures_for(options, source)
        pixels = compared(3, 64, 80)
        expected = in_pytorch(source.network, pixels)
        assert expected.std() > 10, "a flat picture would prove nothing"
        content = serialised(as_asked(source, options, calibration))
        parity = Parity.between(in_onnxruntime(content, pixels), expected)
        print(f"trained {source.direction} {precision}: {parity}")
        assert BARS[precision].failure(parity) is None
        assert parity.psnr_db < 60, "it was not computed in 8 bits"


class RoundedConvolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Computes a network's convolutions in 8 bits, by what the formats mean; layers without a range as they are."""

    def __init__(self, network: ResnetGenerator, precision: EightBits, ranges: dict[str, float]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.names = {weight.data_ptr(): name.removesuffix(".weight") for name, weight in network.named_parameters()}
        self.precision, self.ranges = precision, ranges
        self.rounded: set[str] = set()

    def __torch_dispatch__(self, operator: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if operator in (torch.ops.aten.convolution.default, torch.ops.aten.conv2d.default):
            x, weight, *others = arguments
            name = self.names.get(weight.data_ptr(), "")
            if name in self.ranges:
                self.rounded.add(name)
                largest = weight.abs().amax((1, 2, 3), keepdim=True)
                arguments = (self.round(x, torch.tensor(self.ranges[name])), self.round(weight, largest), *others)
        return operator(*arguments, **(options or {}))

    def round(self, values: Tensor, largest: Tensor) -> Tensor:
        if self.precision == "int8":
            scale = (largest / 127).half().float()
            return (values / scale).round().clamp(-128, 127) * scale
        scale = (largest / 448).half().float()
        return (values / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale


@pytest.mark.parametrize("precision", PRECISIONS)
def test_convolutions_of_repeated_pixels_are_rounded_as_the_formats_say(precision: EightBits) -> None:
    """Keeps the others in float16: in eight layers of random weights, roundings that turn round add up."""
    network, pixels = of_norm("instance", "resize"), photographs(2, 24, 32)
    graph = float32_graph(network)
    ranges = activation_ranges(graph, photographs(4, 32, 32), precision)
    repeated = {layer: largest for layer, largest in ranges.items() if layer.startswith("up")}
    model = quantised(graph, precision, ranges, ranges.keys() - repeated)
    operators = Counter(node.op_type for node in model.graph.node)
    assert (operators["Resize"], operators["Conv"], operators["ConvTranspose"]) == (2, 10, 0)
    assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) == (2, 4)
    found, exact = in_onnxruntime(serialised(model), pixels), in_pytorch(network, pixels)
    with RoundedConvolutions(network, precision, repeated) as rounding:
        rounded = in_pytorch(network, pixels)
    assert rounding.rounded == repeated.keys()
    from_rounded, from_exact = Parity.between(found, rounded).psnr_db, Parity.between(found, exact).psnr_db
    # Measured: 42.9 and 40.2 dB for int8, whose steps are so fine that float16 turns some round, 39.7 and 30.4 for fp8.
    assert from_rounded > 38
    assert from_rounded > from_exact + (2 if precision == "int8" else 8)


def test_what_is_kept_in_float16_costs_nothing(graph: ModelProto, random_generator: ResnetGenerator) -> None:
    pixels = photographs(2, 32, 32)
    expected = in_pytorch(random_generator, pixels)
    ranges = activation_ranges(graph, pixels, "int8")
    layers = list(ranges)

    def psnr(keep: list[str]) -> float:
        return Parity.between(
            in_onnxruntime(serialised(quantised(graph, "int8", ranges, keep)), pixels), expected
        ).psnr_db

    assert psnr([]) + 1 < psnr(layers[:16]) < psnr(layers[:-1])


# --- layer by layer --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_layer_whose_range_is_wrong_is_named_first(graph: ModelProto, random_generator: ResnetGenerator) -> None:
    pixels = photographs(2, 32, 32)
    ranges = activation_ranges(graph, pixels, "int8")
    ranges["blocks.5.conv1"] /= 20
    model = quantised(graph, "int8", ranges, keep=["stem"])
    found = by_layer(random_generator, model, "int8", pixels)
    assert found.keys() == ranges.keys() - {"stem"}
    assert next(iter(found)) == "blocks.5.conv1"
    assert [parity.psnr_db for parity in found.values()] == sorted(parity.psnr_db for parity in found.values())


def test_as_many_layers_are_kept_as_the_bar_asks_for() -> None:
    parities = {name: Parity(0, 0, psnr_db) for name, psnr_db in (("a", 30.0), ("b", 33.0), ("c", 40.0), ("d", 50.0))}
    # Mean squares in units of 1e-4: 10, 5, 1, 0.1; allowed are 6.3 (32 dB).
    assert to_keep(parities, Parity(0, 0, 27.9), "int8") == ["a"]
    # Together they cost twice their sum: 20, 10, 2, 0.2 of which 6.3 may stay.
    assert to_keep(parities, Parity(0, 0, 24.92), "int8") == ["a", "b"]
    assert to_keep(parities, Parity(0, 0, 40.0), "int8") == ["a"]


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Writes a domain as a folder of images."""
    (tmp_path / "domain").mkdir()
    for number, pixels in enumerate(photographs(13, 40, 36)):
        Image.fromarray(pixels).save(tmp_path / "domain" / f"{number:02}.png")
    return tmp_path / "domain"


@pytest.mark.slow
def test_a_file_is_written_with_ranges_of_a_folder_and_verified_on_it(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--checkpoint", str(weights)]
    export = [*common, "--precision", "int8", "--calibration", str(folder), "--out", str(tmp_path)]
    assert to_onnx.main([*export, "--keep-float16", "head", "stem", "--uint8-io"]) == 0
    path = tmp_path / "latest_net_G-int8-uint8.onnx"
    assert {p.key: p.value for p in onnx.load(path).metadata_props}["keep_float16"] == "head stem"
    compare = ["--onnx", str(path), *common, "--images", str(folder), "--size", "32"]
    assert verify.main(compare) == 0
    assert "worst" in capsys.readouterr().out
    monkeypatch.setitem(BARS, "int8", Bar(psnr_db=100.0))
    assert verify.main(compare) == 1
    output = capsys.readouterr()
    assert "reaches a PSNR of" in output.err
    lines = output.out.splitlines()
    assert "each layer alone in int8, the costliest first:" in lines
    assert sum(line.startswith("  blocks.") for line in lines) == 18
    assert not any(line.startswith("  head ") for line in lines), "it is in float16 already"
    assert lines[-1] == "no choice of layers reaches the bar: --precision float16"
    monkeypatch.setitem(BARS, "int8", Bar(psnr_db=45.0))
    assert verify.main(compare) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("what should reach the bar: --keep-float16 stem head "), "what is kept already, too"
    assert len(last.split()) > 7


def test_three_of_four_images_calibrate_and_the_others_are_compared(weights: Path, folder: Path) -> None:
    (source,) = load_sources(weights, "both", [])
    calibration, compared = of_domain(folder, source)
    measured, held_out = calibration(CALIBRATED, 40, 36), compared(CALIBRATED, 40, 36)
    assert (len(measured), len(held_out)) == (9, 4)
    everything = {image.tobytes() for image in (*measured, *held_out)}
    assert everything == {np.asarray(Image.open(path)).tobytes() for path in folder.iterdir()}


def test_a_run_calibrates_on_the_domain_that_it_translates(trained_run: Path) -> None:
    for source in load_sources(trained_run, "both", []):
        domain = "drawings" if source.direction == "b2a" else "photographs"
        for pictures, make in zip(of_domain(None, source), (make_training, make_test), strict=True):
            assert np.array_equal(pictures(6, 32, 24), getattr(make(32, 6), domain)[:, :, :24])


def test_a_run_on_folders_is_compared_on_its_test_images_where_it_has_any(folder: Path, trained_run: Path) -> None:
    root = folder.parent / "data"
    for name in ("trainA", "testB"):
        shutil.copytree(folder, root / name)
    (root / "testB" / "00.png").unlink()
    a2b, b2a = (
        replace(source, config={"data": {"data": str(root), "crop_size": 64}})
        for source in load_sources(trained_run, "both", [])
    )
    assert [len(pictures(CALIBRATED, 40, 36)) for pictures in of_domain(None, a2b)] == [9, 4]
    with pytest.raises(UserError, match="the images that it was trained on are no longer in"):
        of_domain(None, b2a)
    shutil.copytree(folder, root / "trainB")
    assert [len(pictures(CALIBRATED, 40, 36)) for pictures in of_domain(None, b2a)] == [13, 12]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--calibration", "x"], "--calibration is for --precision int8 and fp8"),
        (["--keep-float16", "head"], "--keep-float16 is for --precision int8 and fp8"),
        (["--precision", "int8"], "does not say what it was trained on: give images like those"),
        (["--precision", "int8", "--calibration", "nowhere"], "no folder nowhere"),
        (["--precision", "fp8", "--calibration", "few"], "few has 3 images, and 12 are needed"),
        (["--precision", "int8", "--calibration", "broken"], "broken/05.png: "),
        (
            ["--precision", "int8", "--calibration", "domain", "--keep-float16", "tail"],
            "no layer is called tail; there are",
        ),
    ],
)
def test_what_cannot_be_calibrated_gets_one_line_and_writes_nothing(
    arguments: list[str],
    reason: str,
    weights: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("few", "broken"):
        Path(name).mkdir()
        for path in sorted(folder.iterdir())[: 3 if name == "few" else None]:
            Path(name, path.name).write_bytes(path.read_bytes()[: 100 if path.name == "05.png" else None])
    assert to_onnx.main(["--checkpoint", str(weights), "--out", "out", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reason in line
    assert not Path("out").exists()


def test_every_layer_kept_is_no_quantisation(weights: Path, graph: ModelProto) -> None:
    (source,) = load_sources(weights, "both", [])
    names = [
        node.name for node in graph.graph.node if node.name + ".weight" in {w.name for w in graph.graph.initializer}
    ]
    assert len(names) == 24
    with pytest.raises(UserError, match="names every layer: export in --precision float16"):
        to_onnx.to_onnx(source, "int8", calibration=photographs(1, 32, 32), keep_float16=names)


def test_an_8_bit_graph_reads_no_weight_in_float(graph: ModelProto, ranges: dict[str, float]) -> None:
    """Its file is a quarter of float32's, and what an engine reads per convolution is 8 bits."""
    model = quantised(graph, "int8", ranges)
    sizes = {tensor.name: len(tensor.raw_data) for tensor in model.graph.initializer}
    exact = {tensor.name: len(tensor.raw_data) for tensor in graph.graph.initializer}
    for name in exact.keys() & sizes.keys():
        if name.endswith(".weight"):
            assert sizes[name] * 4 == exact[name]
            assert [node.op_type for node in readers_of(model.graph.node)[name]] == ["DequantizeLinear"]
