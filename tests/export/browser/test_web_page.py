"""Pages that translate in a browser: what is in the file. test_page_in_chromium.py opens them."""

import base64
import gzip
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from export import web
from export.browser import page as web_page, runtime_package
from export.browser.page import PageOptions, write_web_page
from export.browser.runtime_package import BACKEND_FILES, runtime_files
from export.browser.weights import pack, packed_tensors
from export.graphs.graph import serialised
from export.parity import Parity, in_onnxruntime, in_pytorch
from export.pixel_ends import PixelEnds
from export.source import GeneratorSource
from export.to_onnx import float32_graph

SOURCES = Path(web_page.__file__).parent
GREY = PixelType(1)
NODE = shutil.which("node")
NAMES = [name for files in BACKEND_FILES.values() for name in files]


def source_of(network: ResnetGenerator, ends: PixelEnds | None = None, direction: str = "a2b") -> GeneratorSource:
    return GeneratorSource(network, Path("G.pth"), f"G-{direction}", direction, 32, "0" * 64, {}, ends or PixelEnds())


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a few bytes in the place of ONNX Runtime Web, which is not fetched."""
    monkeypatch.setattr(web_page, "runtime_files", lambda names, folder: {name: name.encode() for name in names})


def settings_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="settings">(.*?)</script>', page, re.DOTALL)
    assert found
    settings: dict[str, Any] = json.loads(found[1])
    return settings


def assets_of(page: str) -> dict[str, bytes]:
    found = re.findall(r'<script type="application/octet-stream" id="asset-([\w-]+)">([\w+/=]+)</script>', page)
    return {name: base64.b64decode(text) for name, text in found}


def read_pack(content: bytes) -> tuple[dict[str, Any], Any]:
    """Read a pack by its description alone."""
    length = int.from_bytes(content[:4], "little")
    header = json.loads(content[4 : 4 + length])
    return header, lambda place: content[4 + length + place[0] :][: place[1]]


def weights_of(header: dict[str, Any], part: Any) -> bytes:
    """Widen the weights of a pack, one value after the other."""
    found = []
    for tensor in header["tensors"]:
        if tensor["kind"] == "float16":
            found.append(np.frombuffer(part(tensor["values"]), "<f2").astype(np.float32))
        else:
            values, scales = np.frombuffer(part(tensor["values"]), "i1"), np.frombuffer(part(tensor["scales"]), "<f4")
            channels = np.arange(tensor["count"]) // tensor["inner"] % tensor["channels"]
            found.append(values.astype(np.float32) * scales[channels])
    return np.concatenate(found).tobytes()


def in_node(script: str, *arguments: str) -> Any:
    """Run a script behind those of the worker, and return what it prints as JSON."""
    before = "const vm = require('vm'), fs = require('fs'); globalThis.onmessage = null;"
    files = [str(SOURCES / name) for name in ("resampling.js", "worker.js")]
    for file in files:
        before += f"vm.runInThisContext(fs.readFileSync({json.dumps(file)}, 'utf8'));"
    assert NODE
    ended = subprocess.run(
        [NODE, "-e", f"{before}{script}", *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


needs_node = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_page_is_one_file_that_names_no_address_and_the_same_each_time(
    random_generator: ResnetGenerator, tmp_path: Path, without_library: None
) -> None:
    sources = [source_of(random_generator), source_of(random_generator, direction="b2a")]
    options = PageOptions(title="<Horses> & zebras", label_a="horse </script>", label_b="zebra")
    written = write_web_page(sources, tmp_path / "page.html", options)
    content = written.path.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert written.page_bytes == len(content)
    write_web_page(sources, tmp_path / "again.html", options)
    assert (tmp_path / "again.html").read_bytes() == content
    page = content.decode()
    assert not re.search(
        r"https?://|\ssrc=|\shref=|url\(|@import|(?<!\.)\bimport\b", re.sub(r"[\w+/=]{200,}", "", page)
    )
    assert "{{" not in page.replace("`${", "")
    assert "<title>&lt;Horses&gt; &amp; zebras</title>" in page
    assert [way["from"] for way in settings_of(page)["directions"]] == ["horse </script>", "zebra"]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "connect-src blob: data:;" in policy[1], "a page of one file loads nothing"
    assets = assets_of(page)
    assert {name: len(content) for name, content in assets.items()} == settings_of(page)["assets"]
    assert gzip.decompress(assets["webgpu-wasm"]) == b"ort-wasm-simd-threaded.jspi.wasm"
    assert str(tmp_path) not in page


def test_beside_and_without_webgpu(random_generator: ResnetGenerator, tmp_path: Path, without_library: None) -> None:
    out = tmp_path / "site" / "index.html"
    written = write_web_page([source_of(random_generator)], out, PageOptions(beside=True, webgpu=False))
    assert written.beside == tmp_path / "site" / "index_files"
    names = sorted(path.name for path in written.beside.iterdir())
    assert names == ["model-a2b.bin", "wasm-library.bin", "wasm-loader.bin", "wasm-wasm.bin"]
    page = out.read_text()
    assert assets_of(page) == {}
    assert "connect-src blob: data: 'self';" in page
    assert settings_of(page)["assets"] == {path.stem: path.stat().st_size for path in written.beside.iterdir()}


@needs_node
@pytest.mark.parametrize("name", ["page", "pictures", "engine", "resampling", "worker"])
def test_scripts_are_javascript(name: str) -> None:
    assert NODE
    ended = subprocess.run([NODE, "--check", str(SOURCES / f"{name}.js")], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stored", "least_db"), [("int8", 40.0), ("float16", 58.0)])
def test_a_pack_is_the_graph_that_it_says(random_generator: ResnetGenerator, stored: Any, least_db: float) -> None:
    """Reads a pack by its description, puts the weights into the graph, and compares with PyTorch."""
    source = source_of(random_generator)
    content, computed = pack(source, float32_graph(random_generator), stored)
    header, part = read_pack(content)
    model = onnx.load_from_string(part(header["graph"]))
    weights = weights_of(header, part)
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}
            assert place["location"] == "weights"
            tensor.raw_data = weights[int(place["offset"]) :][: int(place["length"])]
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.ClearField("external_data")
    assert {t.name: onnx.numpy_helper.to_array(t).tobytes() for t in model.graph.initializer} == {
        t.name: onnx.numpy_helper.to_array(t).tobytes() for t in computed.graph.initializer
    }
    check = header["check"]
    samples = np.frombuffer(part(check["samples"]), np.uint8).reshape(1, check["side"], check["side"], 3)
    exact = in_pytorch(random_generator, samples)
    stored_exact = np.frombuffer(part(check["reference"]), "<u2").reshape(exact.shape) / 65535 * 255
    assert np.abs(stored_exact - exact).max() < 0.01
    parity = Parity.between(in_onnxruntime(serialised(computed), samples), exact)
    print(f"{stored}: {parity}, {len(gzip.compress(content))} bytes")
    assert parity.psnr_db >= least_db
    assert abs(parity.psnr_db - check["expected_db"]) < 0.01


def test_scales_of_int8_are_at_least_as_good_as_the_largest_value_s(graph: onnx.ModelProto) -> None:
    exact = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    for tensor in packed_tensors(graph, "int8"):
        rows = np.moveaxis(exact[tensor.name], tensor.axis, 0).reshape(exact[tensor.name].shape[tensor.axis], -1)
        found = np.moveaxis(tensor.widened(), tensor.axis, 0).reshape(rows.shape)
        plain = np.abs(rows).max(1, keepdims=True) / 127
        error, plain_error = (((kind - rows) ** 2).sum(1) for kind in (found, np.rint(rows / plain) * plain))
        assert (error <= plain_error * 1.0001).all(), tensor.name


def test_a_weight_beyond_float16_is_refused(graph: onnx.ModelProto) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(graph)
    (tensor,) = (one for one in large.graph.initializer if one.name == "head.weight")
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 1e7, tensor.name))
    with pytest.raises(UserError, match=r"head\.weight has values up to .* export with --weights int8"):
        packed_tensors(large, "float16")
    assert np.isfinite(packed_tensors(large, "int8")[-1].widened()).all()


# --- the worker's arithmetic, in Node.js ------------------------------------------------------------------------------


@needs_node
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "to"), [((37, 50), (16, 24)), ((20, 31), (20, 64)), ((64, 48), (100, 7))])
def test_pictures_are_resized_as_pillow_does(size: tuple[int, int], to: tuple[int, int], channels: int) -> None:
    from cyclegan_fast.data.preparation import resize_samples

    samples = np.random.default_rng(0).integers(0, 256, (*size, channels), dtype=np.uint8)
    given = [samples.ravel().tolist(), *size, *to, channels]
    found = in_node(
        "const [s, ...sides] = JSON.parse(process.argv[1]);"
        "console.log(JSON.stringify([...resized(Uint8Array.from(s), ...sides)]))",
        json.dumps(given),
    )
    expected = resize_samples(samples, to[1], to[0]).astype(int)
    difference = np.abs(np.array(found).reshape(*to, channels) - expected)
    assert difference.max() <= (0 if channels == 3 else 1), (
        "one channel is rounded from float32 there, from doubles here"
    )
    assert (difference > 0).mean() < 0.01


@needs_node
@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(600, 512, 64), (1024, 512, 64), (516, 512, 64), (2000, 512, 64)]
)
def test_tiles_cover_a_side_with_weights_of_one(length: int, tile: int, overlap: int) -> None:
    placed = in_node(
        f"const all = places({length}, {tile}, {overlap});"
        "console.log(JSON.stringify(all.map(p => ({...p, weights: [...p.weights]}))))"
    )
    sums = np.zeros(length)
    for one in placed:
        assert one["begin"] % 4 == 0
        assert one["length"] == tile
        assert min(one["weights"]) > 0
        sums[one["begin"] :][: one["length"]] += one["weights"]
    assert np.allclose(sums, 1, atol=1e-6)
    assert placed[-1]["begin"] + tile == length


@needs_node
def test_halves_are_widened_exactly() -> None:
    bits = np.arange(0, 0x7C00, 7, dtype=np.uint16)
    bits = np.concatenate([bits, bits | 0x8000])
    found = in_node(
        "const b = Uint16Array.from(JSON.parse(process.argv[1])), t = new Float32Array(b.length); halves(b, t);"
        "console.log(JSON.stringify([...t]))",
        json.dumps(bits.tolist()),
    )
    assert np.array_equal(np.array(found, np.float32), bits.view(np.float16).astype(np.float32))


# --- the library -----------------------------------------------------------------------------------------------------


def test_a_folder_of_another_release_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no ort\.wasm\.min\.js: give the folder dist of the package"):
        runtime_files(NAMES, tmp_path)
    (tmp_path / "ort.wasm.min.js").write_text("other")
    with pytest.raises(UserError, match=r"ort\.wasm\.min\.js is not that of onnxruntime-web@1\.30\.0, or is damaged"):
        runtime_files(NAMES, tmp_path)


def test_without_npm_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"npm is not installed.*--runtime") as refused:
        runtime_files(NAMES, None)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_what_npm_gives_is_held_against_its_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text("#!/bin/sh\necho other > onnxruntime-web-1.30.0.tgz\n")
    npm.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match=r"what npm gave for onnxruntime-web@1\.30\.0 is not that package"):
        runtime_files(NAMES, None)
    npm.write_text("#!/bin/sh\necho first >&2\necho npm error code ENOTFOUND >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"could not fetch onnxruntime-web@1\.30\.0 \(npm error code ENOTFOUND\): see"):
        runtime_files(NAMES, None)


def test_a_damaged_file_of_the_cache_is_fetched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fetched = []

    def fetch(names: list[str]) -> dict[str, bytes]:
        fetched.append(names)
        return dict.fromkeys(names, b"genuine")

    monkeypatch.setattr(runtime_package, "_fetched", fetch)
    monkeypatch.setattr(runtime_package, "_is_genuine", lambda name, content: content == b"genuine")
    for _ in range(2):
        assert runtime_files(NAMES[:2], None) == dict.fromkeys(NAMES[:2], b"genuine")
    (file,) = tmp_path.rglob(NAMES[1])
    file.write_bytes(b"genuinf")
    assert runtime_files(NAMES[:2], None)[NAMES[1]] == b"genuine"
    assert fetched == [NAMES[:2], [NAMES[1]]]


# --- what is refused, and the command ---------------------------------------------------------------------------------


def test_pixels_that_browsers_do_not_show_are_refused(tmp_path: Path, network: ResnetGenerator) -> None:
    deep = PixelEnds(PixelType(1, "uint16", 0, 4095), GREY)
    with pytest.raises(UserError, match=r"G\.pth translates 1 channel, uint16, 0 to 4095 -> .* only 8-bit RGB"):
        write_web_page([source_of(network, deep)], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_says_what_and_refuses_paths(
    weights: Path,
    tmp_path: Path,
    without_library: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "x" / "page.html"
    assert web.main([str(weights), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{out}: {out.stat().st_size / 1e6:.1f} MB"
    assert re.match(r"  latest_net_G: \d\.\d MB packed, \d\d\.\d dB, mean", lines[1])
    for wrong, said in (("page.png", "--out must end in .html"), ("x.html", "is a folder: give a file in it")):
        (tmp_path / "x.html").mkdir(exist_ok=True)
        assert web.main([str(weights), "--out", str(tmp_path / wrong)]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr(Parity, "worst", staticmethod(lambda parities: Parity(9.0, 9.0, 20.0)))
    assert web.main([str(weights), "--out", str(out)]) == 1
    assert "in int8 reaches a PSNR of 20.0 dB, asked are 32: give --weights float16" in capsys.readouterr().err
