"""Test generators of other channels and types than 8-bit RGB: their graphs, cards, translators and commands."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from onnx import ModelProto, helper

import export
from cyclegan_fast.checkpoint import files as checkpoint
from cyclegan_fast.images.pixel_type import RGB, PixelType, SampleArray
from cyclegan_fast.images.pixels import to_pixels, to_signed
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError, printable
from export import run as run_exported, to_onnx, verify
from export.engines.engine_card import EngineCard
from export.graph_translator import GraphTranslator
from export.graphs.graph import serialised, valid_model
from export.graphs.onnx_file import metadata_of, with_digest
from export.graphs.quantisation import largest_activations
from export.onnx_translators import load_translator
from export.options import ExportOptions
from export.parity import BARS, Parity, in_onnxruntime, in_pytorch
from export.pictures import photographs_as
from export.pixel_ends import PixelEnds
from export.source import GeneratorSource, load_sources
from tests.export.fake_machine import PROFILE, Machine
from tests.export.fake_tensorrt import upright

pytestmark = pytest.mark.usefixtures("one_thread")

ENDS = {
    "grey to colours": PixelEnds(PixelType(1, "uint16", 0, 4095), RGB),
    "bands to heights": PixelEnds(PixelType(6), PixelType(1, "float32", -2.5, 10)),
}
NAMES = list(ENDS)
A_RUN = Path(__file__).parents[1] / "fixtures/0.1.0/run/checkpoints/last.pt"


@dataclass
class Exported:
    """Holds a generator, and files of it: with values in [-1, 1] and with samples."""

    source: GeneratorSource
    signed: Path
    samples: Path

    @property
    def ends(self) -> PixelEnds:
        return self.source.ends

    def file(self, io: str) -> Path:
        return self.signed if io == "signed" else self.samples

    def in_pytorch(self, samples: SampleArray) -> SampleArray:
        """Translates [N, H, W, C] by the network itself, to samples."""
        with torch.inference_mode():
            signed = to_signed(torch.from_numpy(samples), self.ends.source)
            return to_pixels(self.source.network(signed), self.ends.target)


def random_network(ends: PixelEnds) -> ResnetGenerator:
    torch.manual_seed(0)
    source, target = ends
    network = ResnetGenerator(inputs=source.channels, outputs=target.channels, width=8, blocks=2).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0.0, 0.1)
    return network


@pytest.fixture(scope="module")
def all_exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    made = {}
    for name, ends in ENDS.items():
        folder = tmp_path_factory.mktemp("exported")
        source = GeneratorSource(random_network(ends), folder / "x.pt", "x", "a2b", 32, "0" * 64, {}, ends)
        made[name] = Exported(source, folder / "signed.onnx", folder / "samples.onnx")
        for path, has_samples in ((made[name].signed, False), (made[name].samples, True)):
            path.write_bytes(with_digest(serialised(to_onnx.to_onnx(source, "float32", uint8_io=has_samples))))
    return made


@pytest.fixture(params=NAMES)
def exported(request: pytest.FixtureRequest, all_exported: dict[str, Exported]) -> Exported:
    found: Exported = all_exported[request.param]
    return found


def write_run(folder: Path, data: Path) -> Path:
    """Writes a run of 12-bit grey and 8-bit RGB images, whose generators are random."""
    ends = ENDS["grey to colours"]
    content = torch.load(A_RUN, weights_only=True)
    pixels = {"channels_a": 1, "dtype_a": "uint16", "range_a": [0, 4095], "channels_b": 3, "dtype_b": "uint8"}
    content["config"]["data"] |= {"data": str(data), **pixels}
    content["written_by"] = "0.0.1"  # of other versions no discriminators are asked for
    networks = {"G_A": random_network(ends), "G_B": random_network(PixelEnds(ends.target, ends.source))}
    content["model"] = {
        f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
    }
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.pt").write_bytes(checkpoint.to_bytes(content))
    return folder


def write_tiffs(folder: Path, count: int, side: int = 32) -> list[SampleArray]:
    """Writes 16-bit grey images of 12 bits, and returns them."""
    folder.mkdir(parents=True)
    images = photographs_as(PixelType(1, "uint16", 0, 4095))(count, side, side)
    for index, image in enumerate(images):
        tifffile.imwrite(folder / f"{index}.tif", image[..., 0])
    return list(images)


# --- graphs ----------------------------------------------------------------------------------------------------------


def test_a_file_says_what_pixels_it_translates(exported: Exported) -> None:
    for path in (exported.signed, exported.samples):
        metadata = metadata_of(path.read_bytes())
        assert metadata == {entry.key: entry.value for entry in ModelProto.FromString(path.read_bytes()).metadata_props}
        assert PixelEnds.of_entries(metadata) == exported.ends
        valid_model(path, path.read_bytes())
    graph = ModelProto.FromString(exported.samples.read_bytes()).graph
    types = [helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output)]
    assert types == [np.uint8 if kind.dtype == "uint8" else np.float32 for kind in exported.ends]


def test_graphs_keep_their_parity_in_the_images_own_units(exported: Exported) -> None:
    network, ends = exported.source.network, exported.ends
    for shape in ((1, 32, 32), (3, 40, 24)):
        samples = photographs_as(ends.source)(*shape)
        assert samples.dtype == ends.source.as_numpy
        assert samples.shape == (*shape, ends.source.channels)
        expected = in_pytorch(network, samples, ends)
        assert expected.std() > 0.05 * (ends.target.high - ends.target.low), "a flat picture would prove nothing"
        for path in (exported.signed, exported.samples):
            found = in_onnxruntime(path.read_bytes(), samples, ends=ends)
            parity = Parity.between(found, expected, ends.target)
            assert BARS["float32"].failure(parity) is None
            rounding = 0.5 if path == exported.samples and ends.target.dtype == "uint8" else 0.0
            assert parity.largest <= rounding + 1e-4 * (ends.target.high - ends.target.low)


def test_a_path_through_8_bits_falls_short_of_the_bar_of_deeper_images() -> None:
    kind = PixelType(1, "uint16", 0, 4095)
    exact = np.random.default_rng(0).uniform(0, 4095, (1, 64, 64, 1))
    rounded = np.rint(exact * 255 / 4095) * 4095 / 255
    assert "PSNR of 58.9 dB, asked are 65" in (BARS["float32"].failure(Parity.between(rounded, exact, kind)) or "")
    parity = Parity.between(exact + 12, exact, kind)
    assert str(parity) == "50.7 dB, mean 12, at most 12 counts of 0 to 4095"
    assert BARS["float16"].failure(Parity.between(exact + 9, exact, kind)) == (
        "differs by 9 counts of 0 to 4095 in the mean, allowed are 8.02941"
    )
    heights = PixelType(1, "float32", 0, 1)
    assert "up to 0.25 of 0 to 1" in (BARS["float32"].failure(Parity.between(exact + 0.25, exact, heights)) or "")


def test_8_bit_convolutions_are_calibrated_on_images_of_the_domain(all_exported: dict[str, Exported]) -> None:
    exported = all_exported["bands to heights"]
    ends, network = exported.ends, exported.source.network
    calibration, compared = np.split(photographs_as(ends.source)(6, 32, 32), [4])
    largest = largest_activations(to_onnx.float32_graph(network), calibration, ends.source)
    assert 0.9 < largest["stem"] <= 1
    model = to_onnx.to_onnx(exported.source, "int8", calibration=calibration)
    expected = in_pytorch(network, compared, ends)
    parity = Parity.between(in_onnxruntime(serialised(model), compared, ends=ends), expected, ends.target)
    assert 25 < parity.psnr_db < 60  # random weights do not reach the bar


# --- translators -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["signed", "samples"])
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_translators_take_and_give_the_domains_types(exported: Exported, io: str, backend: Any) -> None:
    ends = exported.ends
    samples = photographs_as(ends.source)(2, 32, 24)
    translator, _ = load_translator(exported.file(io), backend, "cpu", amp=False)
    assert (translator.source, translator.target) == ends
    assert (translator.signed is None) == (io == "samples")
    found, expected = translator(samples), exported.in_pytorch(samples)
    assert found.dtype == ends.target.as_numpy
    assert found.shape == expected.shape
    largest = np.abs(found.astype(np.float64) - expected).max()
    assert largest <= (1 if ends.target.dtype == "uint8" else 1e-3)


def test_from_python_arrays_and_files_are_translated(all_exported: dict[str, Exported], tmp_path: Path) -> None:
    exported = all_exported["grey to colours"]
    (image,) = write_tiffs(tmp_path / "grey", 1)
    with export.load(exported.signed) as translator:
        assert (translator.source, translator.target) == exported.ends
        assert "1 channel, uint16, 0 to 4095 -> 8-bit RGB" in repr(translator)
        found = translator(image)
        assert np.abs(found.astype(int) - exported.in_pytorch(image[None])[0]).max() <= 1
        assert np.array_equal(np.asarray(translator(tmp_path / "grey/0.tif")), found)


def test_values_that_are_not_finite_are_told_of(all_exported: dict[str, Exported]) -> None:
    ends = all_exported["bands to heights"].ends
    translator = GraphTranslator(lambda images: np.full((*images.shape[:3], 1), np.nan, np.float32), True, ends)
    with pytest.raises(UserError, match="not finite"):
        translator(np.zeros((1, 8, 8, 6), np.uint8))


# --- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["signed", "samples"])
def test_a_folder_of_16_bit_tiff_is_translated(
    all_exported: dict[str, Exported], tmp_path: Path, io: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exported = all_exported["grey to colours"]
    images = write_tiffs(tmp_path / "grey", 2, 36)
    flags = ["--onnx", str(exported.file(io)), "--backend", "onnxruntime", "--no-contact-sheet"]
    assert run_exported.main([str(tmp_path / "grey"), *flags, "--out", str(tmp_path / "out")]) == 0
    assert "; 1 channel, uint16, 0 to 4095 -> 8-bit RGB" in capsys.readouterr().out
    from PIL import Image

    for index, image in enumerate(images):
        (path,) = (tmp_path / "out").glob(f"{index}.*")
        found = np.asarray(Image.open(path))
        assert np.abs(found.astype(int) - exported.in_pytorch(image[None])[0]).max() <= 1

    ranged = [*flags, "--range", "0", "2000", "--out", str(tmp_path / "ranged")]
    status = run_exported.main([str(tmp_path / "grey"), *ranged])
    if io == "samples":
        assert status == 2
        assert "the range of 1 channel, uint16, 0 to 4095 is in the exported file itself" in capsys.readouterr().err
        return
    assert status == 0
    with torch.inference_mode():
        signed = to_signed(torch.from_numpy(images[0][None]), replace(exported.ends.source, high=2000))
        expected = to_pixels(exported.source.network(signed))[0]
    (path,) = (tmp_path / "ranged").glob("0.*")
    assert np.abs(np.asarray(Image.open(path)).astype(int) - expected).max() <= 1


def test_images_of_6_bands_become_images_of_heights(all_exported: dict[str, Exported], tmp_path: Path) -> None:
    exported = all_exported["bands to heights"]
    (image,) = photographs_as(exported.ends.source)(1, 32, 32)
    (tmp_path / "bands").mkdir()
    tifffile.imwrite(
        tmp_path / "bands/x.tif", image.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"
    )
    flags = ["--onnx", str(exported.signed), "--backend", "onnxruntime", "--no-contact-sheet"]
    assert run_exported.main([str(tmp_path / "bands"), *flags, "--out", str(tmp_path / "out")]) == 0
    found = tifffile.imread(tmp_path / "out/x.tif")
    assert found.dtype == np.float32
    assert np.abs(found.reshape(32, 32) - exported.in_pytorch(image[None])[0, ..., 0]).max() < 1e-4


def test_a_run_is_exported_and_verified_in_its_own_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiffs(tmp_path / "data/testA", 4, 40)
    run = write_run(tmp_path / "run", tmp_path / "data")
    forth, back = load_sources(run, "both", [])
    assert forth.ends == ENDS["grey to colours"]
    assert back.ends == PixelEnds(*reversed(forth.ends))
    out = tmp_path / "engines"
    assert to_onnx.main(["--checkpoint", str(run), "--precision", "float32", "--uint8-io", "--out", str(out)]) == 0
    # Colours are taken from photographs, as there is no folder of them; grey ones from the run's own.
    for name, unit in (("run-a2b", "levels"), ("run-b2a", "counts of 0 to 4095")):
        path = out / f"{name}-float32-samples.onnx"
        capsys.readouterr()
        assert verify.main(["--onnx", str(path), "--checkpoint", str(run)]) == 0
        worst = capsys.readouterr().out.splitlines()[-1]
        assert worst.strip().startswith("worst")
        assert worst.endswith(unit)

    changed = ModelProto.FromString(path.read_bytes())
    entry = next(entry for entry in changed.metadata_props if entry.key == "output_pixels")
    entry.value = entry.value.replace("4095", "1000")
    del changed.metadata_props[-1]
    path.write_bytes(with_digest(serialised(changed)))
    assert verify.main(["--onnx", str(path), "--checkpoint", str(run)]) == 2
    assert "says that it translates 8-bit RGB -> 1 channel, uint16, 0 to 1000, and" in capsys.readouterr().err


def test_bare_weights_are_told_what_their_pixels_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ends = ENDS["bands to heights"]
    torch.save(random_network(ends).state_dict(), weights := tmp_path / "bands.pth")
    flags = ["--checkpoint", str(weights), "--precision", "float32", "--out", str(tmp_path)]
    told = ["--dtype", "int16", "--range", "-5", "900", "--target-dtype", "float32", "--target-range", "-2.5", "10"]
    assert to_onnx.main([*flags, *told]) == 0
    path = tmp_path / "bands-float32.onnx"
    expected = PixelEnds(PixelType(6, "int16", -5, 900), ends.target)
    assert PixelEnds.of_entries(metadata_of(path.read_bytes())) == expected
    assert verify.main(["--onnx", str(path), "--checkpoint", str(weights), "--size", "32"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("of -2.5 to 10")
    (plain,) = ExportOptions(checkpoint=weights).sources([])
    assert plain.ends == PixelEnds(PixelType(6), PixelType(1))

    run = write_run(tmp_path / "run", tmp_path / "data")
    for wrong, message in (
        (["--target-dtype", "float32"], "--target-dtype float32 needs --target-range LOW HIGH"),
        (["--range", "0", "9"], "--range goes with a type of more than 8 bits, got none"),
        (["--dtype", "uint8", "--range", "0", "9"], "--range goes with a type of more than 8 bits, got uint8"),
        (["--dtype", "int16", "--checkpoint", str(run)], "is of a run, which says what its pixels are"),
    ):
        assert to_onnx.main([*flags, *wrong]) == 2
        assert message in capsys.readouterr().err


# --- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uint8_io", [True, False])
def test_an_engine_of_other_pixels_runs_as_its_card_says(machine: Machine, uint8_io: bool) -> None:
    ends = PixelEnds(PixelType(1, "uint16", 0, 4095), PixelType(2, "float32", 0, 1))
    world = machine(uint8_io=uint8_io, ends=ends)
    assert EngineCard.beside(world.path) == world.card
    samples = np.random.default_rng(0).integers(0, 4096, (2, 16, 12, 1), dtype=np.uint16)
    with export.load(world.path) as translator:
        found = translator(samples)
    if uint8_io:
        expected = upright(samples.astype(np.float32), (2, 16, 12, 2))
    else:
        signed = samples.astype(np.float32) / np.float32(2047.5) - 1
        expected = np.repeat((signed + 1) * 0.5, 2, 3).astype(np.float32)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()
    with world.engine() as engine:
        taken = np.float32 if uint8_io else np.uint8
        with pytest.raises(UserError, match=r"the engine takes float32 \[N, "):
            engine(np.zeros((1, 16, 16, 3), taken))


def test_an_engine_of_other_channels_than_its_card_says_is_refused(machine: Machine) -> None:
    world = machine(uint8_io=False, ends=PixelEnds(PixelType(1), PixelType(2)))
    world.trt.ends = PixelEnds(PixelType(1), PixelType(4))
    with pytest.raises(UserError, match=r"as float32 \[N, 1, H, W\] in \[-1, 1\] and float32 \[N, 2, H, W\] in"):
        world.engine()


@pytest.mark.slow
@pytest.mark.parametrize("io", ["signed", "samples"])
def test_a_real_engine_is_built_for_other_pixels(exported: Exported, io: str) -> None:
    from export.engines.builder import build
    from export.engines.libraries import load_library

    graph = exported.file(io).read_bytes()
    engine = build(load_library("tensorrt_rtx"), graph, PROFILE, targets=("sm89",), progress=False)
    source, target = exported.ends
    shapes = [
        (-1, -1, -1, kind.channels) if io == "samples" else (-1, kind.channels, -1, -1) for kind in (source, target)
    ]
    assert [engine.input.shape, engine.output.shape] == shapes
    names = ["uint8" if io == "samples" and kind.dtype == "uint8" else "float" for kind in (source, target)]
    assert [engine.input.dtype, engine.output.dtype] == names


# --- what makes no sense ---------------------------------------------------------------------------------------------

GOOD = PixelType(1, "uint16", 0, 4095).as_values()
NONSENSE = [
    (None, "must be a list of channels, dtype, low, high"),
    ([], "must be a list of channels, dtype, low, high"),
    ({**GOOD, "alpha": 1}, "must be a list of channels, dtype, low, high"),
    ({**GOOD, "channels": 0}, "must describe pixels: channels must be from 1"),
    ({**GOOD, "channels": 2**70}, "must describe pixels: channels must be from 1"),
    ({**GOOD, "channels": True}, "must be of a whole number of channels"),
    ({**GOOD, "dtype": "uint32"}, "must describe pixels: dtype must be one of"),
    ({**GOOD, "dtype": ["uint16"]}, "must be of a whole number of channels and the name of a type"),
    ({**GOOD, "low": "0"}, "must be of a range of numbers"),
    ({**GOOD, "low": float("nan")}, "must be of a range of numbers"),
    ({**GOOD, "high": 1e300}, "must be of a range of numbers"),
    ({**GOOD, "high": -1}, "must describe pixels: a range goes from a low to a high value"),
    ({**GOOD, "low": 1e6, "high": 2e6}, "must be of a range that uint16 holds"),
    ({**GOOD, "dtype": "float32", "high": 1e-300}, "must be of a range of 1e-37 at least"),
]


@pytest.mark.parametrize(("values", "message"), NONSENSE)
def test_pixels_that_make_no_sense_are_refused_in_a_sentence(
    machine: Machine, all_exported: dict[str, Exported], tmp_path: Path, values: object, message: str
) -> None:
    world = machine(ends=ENDS["grey to colours"])
    card = world.path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "input_pixels": values}))
    model = ModelProto.FromString(all_exported["grey to colours"].signed.read_bytes())
    del model.metadata_props[-1]  # the digest
    next(entry for entry in model.metadata_props if entry.key == "input_pixels").value = json.dumps(values)
    path = tmp_path / "x.onnx"
    path.write_bytes(with_digest(serialised(model)))
    for read in (
        lambda: EngineCard.beside(world.path),
        lambda: load_translator(path, "onnxruntime", "cpu", amp=False),
        lambda: load_translator(path, "openvino", "cpu", amp=False),
        lambda: valid_model(path, path.read_bytes()),
    ):
        with pytest.raises(UserError) as raised:
            read()
        shown = printable(str(raised.value))
        assert f"input_pixels {message}" in shown
        assert "export it anew" in shown or "build it anew" in shown
        assert len(shown) < 500


def test_half_of_a_description_and_other_channels_are_refused(
    all_exported: dict[str, Exported], tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    for name, value, message in (
        ("stranger", "1", "output_pixels is missing"),
        ("output_pixels", "[" * 100_000, "output_pixels"),
        (
            "output_pixels",
            json.dumps(PixelType(4).as_values()),
            r"and gives translated: float32 \[any, 3, any, any\], and",
        ),
    ):
        model = ModelProto.FromString(all_exported["grey to colours"].signed.read_bytes())
        del model.metadata_props[-1]
        entry = next(entry for entry in model.metadata_props if entry.key == "output_pixels")
        entry.key, entry.value = name, value
        path.write_bytes(with_digest(serialised(model)))
        for backend in ("onnxruntime", "openvino"):
            with pytest.raises(UserError, match=message):
                load_translator(path, backend, "cpu", amp=False)


def test_files_of_rgb_say_nothing_of_it() -> None:
    assert PixelEnds().as_entries() == {}
    assert PixelEnds.of_fields({"library": "x"}) == PixelEnds()
    assert PixelEnds(RGB, PixelType(1)).as_fields().keys() == {"input_pixels", "output_pixels"}
