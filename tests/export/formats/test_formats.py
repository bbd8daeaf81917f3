"""Each format that is made and run here translates as PyTorch does; the others say why they are not."""

import ast
import platform
import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.networks.resnet import ResnetGenerator
from export.engines import libraries
from export.engines.engine_card import EngineCard
from export.formats.export_format import ExportFormat, is_importable
from export.formats.litert import without_transposed_convolutions
from export.formats.making import FormatJob, make_and_measure
from export.formats.material import ExportMaterial
from export.formats.registry import EXPORT_FORMATS, chosen_formats
from export.pixel_ends import PixelEnds
from export.source import GeneratorSource

ROOT = Path(__file__).parents[3]
SIDE = 32


def material_of(network: ResnetGenerator, folder: Path, ends: PixelEnds) -> ExportMaterial:
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3 / max(1.0, parameter[0].numel() ** 0.5) * 3)
    source = GeneratorSource(network.eval(), Path("g.pth"), "g-a2b", "a2b", SIDE, "0" * 64, {}, ends)
    return ExportMaterial(source, SIDE, folder)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> ExportMaterial:
    torch.manual_seed(0)
    return material_of(ResnetGenerator(width=4, blocks=1), tmp_path_factory.mktemp("common"), PixelEnds())


@pytest.fixture(scope="module")
def deep_material(tmp_path_factory: pytest.TempPathFactory) -> ExportMaterial:
    """Gives a generator of one 12-bit channel to two of float32."""
    torch.manual_seed(1)
    ends = PixelEnds(PixelType(1, "uint16", 0, 4095), PixelType(2, "float32", -1000, 3000))
    network = ResnetGenerator(inputs=1, outputs=2, width=4, blocks=1, upsampling="resize")
    return material_of(network, tmp_path_factory.mktemp("common"), ends)


def made_here(name: str) -> ExportFormat:
    """Return a format, or skip the test where what makes it is an extra that is not installed."""
    of_format = EXPORT_FORMATS[name]
    if reason := of_format.why_not_made():
        pytest.skip(reason)
    return of_format


RUN_IN_CI = ["onnx", "openvino", "torchscript", "ncnn"]
HEAVY = [pytest.param(name, marks=pytest.mark.slow) for name in ("pt2", "executorch", "litert")]


def test_what_ci_runs_is_installed_there() -> None:
    """Keeps the tests below from being skipped where they must not."""
    assert [EXPORT_FORMATS[name].why_not_made() for name in (*RUN_IN_CI, "tensorrt-rtx")] == [None] * 5


@pytest.mark.parametrize("name", [*RUN_IN_CI, *HEAVY])
def test_a_format_translates_as_pytorch_does_at_every_shape_that_it_takes(
    name: str, material: ExportMaterial, tmp_path: Path
) -> None:
    of_format = made_here(name)
    of_format.make(material, tmp_path / "x")
    assert sorted(tmp_path.iterdir()) == sorted(of_format.paths(tmp_path / "x"))
    run = of_format.open(tmp_path / "x", 1)
    shapes = {
        "any batch and size": [(1, SIDE, SIDE), (3, 24, 44), (2, 8, 8), (1, 64, 12)],
        "one image of any size": [(1, SIDE, SIDE), (1, 24, 44), (1, 8, 8), (1, 64, 12)],
        "one shape": [(1, SIDE, SIDE)],
    }[of_format.taken]
    for batch, height, width in shapes:
        images = np.random.default_rng(width).uniform(-1, 1, (batch, 3, height, width)).astype(np.float32)
        with torch.inference_mode():
            expected = material.source.network(torch.from_numpy(images)).numpy()
        assert expected.std() > 0.05, "a flat image would be like any other"
        found = run(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=f"{name} {batch}x{height}x{width}")


@pytest.mark.parametrize("name", [*RUN_IN_CI, *HEAVY])
def test_a_format_takes_other_channels_and_its_row_is_in_their_units(
    name: str, deep_material: ExportMaterial, tmp_path: Path
) -> None:
    row = make_and_measure(FormatJob(made_here(name), deep_material, tmp_path, 2))
    assert (row.failure, row.not_run, row.outcome) == (None, None, "ran here")
    assert row.unit == "of -1000 to 3000"
    assert row.psnr_db is not None
    assert row.psnr_db > 80
    assert row.largest is not None
    assert row.largest < 4
    assert row.pixels["input_pixels"] == {"channels": 1, "dtype": "uint16", "low": 0.0, "high": 4095.0}
    assert None not in (row.ms, row.pytorch_ms, row.ratio)
    assert {*row.files} == {path.name for path in tmp_path.iterdir()}
    assert row.size_mb == sum(path.stat().st_size for path in tmp_path.iterdir()) / 1e6
    assert row.versions["torch"] == torch.__version__


def test_an_engine_is_built_with_its_card_and_says_why_it_was_not_run(
    material: ExportMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "gpu_count", lambda: 0)
    row = make_and_measure(FormatJob(EXPORT_FORMATS["tensorrt-rtx"], material, tmp_path, 1))
    assert (row.outcome, row.failure) == ("made, not run", None)
    assert row.not_run == "there is no NVIDIA GPU here: it was built, not run"
    assert row.psnr_db is None
    assert row.ms is None
    card = EngineCard.beside(tmp_path / row.files[0])
    card.content_of_engine(tmp_path / row.files[0])
    assert card.profile.usual == (1, SIDE, SIDE)


def test_tensorrt_is_not_made_without_a_gpu(
    material: ExportMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "gpu_count", lambda: 0)
    row = make_and_measure(FormatJob(EXPORT_FORMATS["tensorrt"], material, tmp_path, 1))
    assert row.outcome == "not made"
    assert "is built on an NVIDIA GPU, and there is none here: tensorrt-rtx needs none" in str(row.failure)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_core_ml_package_is_made_on_linux_and_says_that_it_runs_on_macos(
    material: ExportMaterial, tmp_path: Path
) -> None:
    row = make_and_measure(FormatJob(made_here("coreml"), material, tmp_path, 1))
    assert row.failure is None
    assert row.files == ("g-a2b.mlpackage",)
    if platform.system() != "Darwin":
        assert row.outcome == "made, not run"


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    material: ExportMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.formats.export_format.is_importable", lambda module: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    for name, of_format in EXPORT_FORMATS.items():
        if name not in ("torchscript", "tensorrt"):
            row = make_and_measure(FormatJob(of_format, material, tmp_path, 1))
            assert row.outcome == "not made"
            assert "install" in str(row.failure), name
    assert list(tmp_path.iterdir()) == []
    assert not is_importable("no_such_package.at_all")


def test_a_page_without_npm_says_so_in_its_row(
    material: ExportMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    row = make_and_measure(FormatJob(EXPORT_FORMATS["web"], material, tmp_path, 1))
    assert row.outcome == "not made"
    assert str(row.failure).startswith("npm is not installed, which fetches ONNX Runtime Web: install Node.js")
    assert EXPORT_FORMATS["web"] not in chosen_formats("installed")


def test_a_page_has_in_its_row_the_parity_that_it_shows(
    material: ExportMaterial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.browser.runtime_package.can_be_had", lambda names: True)
    monkeypatch.setattr("export.browser.page.runtime_files", lambda names, folder: dict.fromkeys(names, b"a library"))
    graph = onnx.load_from_string(material.onnx())  # which was traced for the tests above; a page's is the same
    monkeypatch.setattr("export.to_onnx.float32_graph", lambda network: graph)
    row = make_and_measure(FormatJob(EXPORT_FORMATS["web"], material, tmp_path, 1))
    assert (row.failure, row.files, row.outcome) == (None, ("g-a2b.html",), "made, not run")
    (shown,) = re.findall(r'"parity_db": ([\d.]+)', (tmp_path / "g-a2b.html").read_text())
    assert row.psnr_db is not None
    assert f"{row.psnr_db:.1f}" == shown
    assert 32 <= row.psnr_db < 80, "weights of 8 bits are near, and no nearer"
    assert row.largest is not None
    assert row.largest > 0.1
    assert "its parity is that of ONNX Runtime on this machine's CPU, by the graph" in str(row.reason)
    assert row.ms is None


def test_every_format_of_the_folder_is_registered_described_and_documented() -> None:
    folder, page = ROOT / "export" / "formats", (ROOT / "docs" / "deployment.md").read_text()
    classes = {
        node.name
        for path in folder.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any("Format" in ast.unparse(base) for base in node.bases)
    }
    assert classes == {type(of_format).__name__ for of_format in EXPORT_FORMATS.values()}
    endings = [ending for of_format in EXPORT_FORMATS.values() for ending in of_format.endings]
    assert len(endings) == len({*endings}), "two formats would replace each other's files"
    for name, of_format in EXPORT_FORMATS.items():
        assert f"| {name} |" in page
        assert of_format.install.startswith("pip install"), name
        assert of_format.runs_with
        assert type(of_format).__doc__


@pytest.mark.parametrize("norm", ["instance", "none"])  # with a bias in "none"
def test_plain_convolutions_take_the_place_of_transposed_ones(norm: Literal["instance", "none"]) -> None:
    network = ResnetGenerator(width=4, blocks=1, norm=norm).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    plain = without_transposed_convolutions(network)
    assert not any(isinstance(module, torch.nn.ConvTranspose2d) for module in plain.modules())
    image = torch.rand(2, 3, 12, 20, dtype=torch.float64) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(plain(image), network(image), rtol=1e-10, atol=1e-10)


def test_the_bar_is_held(material: ExportMaterial, tmp_path: Path) -> None:
    """Damages the weights behind the converter's back: the row must say so, and the file is there to look at."""
    source = replace(material.source, network=ResnetGenerator(width=4, blocks=1).eval())
    other = replace(material, source=source)  # its graph is in the common folder already, of the other weights
    row = make_and_measure(FormatJob(EXPORT_FORMATS["onnx"], other, tmp_path, 1)) if other.onnx() else None
    assert row is not None
    assert row.outcome == "FAILED"
    assert "allowed are 1" in str(row.failure)
