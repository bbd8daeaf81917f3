"""Pages that translate, in a headless Chromium: by WebAssembly, with threads, and by WebGPU in software."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan_fast.images.pixel_type import PixelType
from cyclegan_fast.networks.resnet import ResnetGenerator
from cyclegan_fast.system.errors import UserError
from export.browser import page as web_page
from export.browser.page import PageOptions, write_web_page
from export.browser.runtime_package import BACKEND_FILES, runtime_files
from export.browser.weights import as_computed, packed_tensors
from export.graphs.graph import serialised
from export.parity import Parity, Values, in_onnxruntime, in_pytorch
from export.pixel_ends import PixelEnds
from export.source import GeneratorSource, load_sources
from export.to_onnx import float32_graph
from tests.cyclegan_fast.browser import needs_browser, opened_browser, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page

GREY = PixelType(1)
NAMES = [name for files in BACKEND_FILES.values() for name in files]
SWIFTSHADER = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
FAKE_CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
WAIT_S = 300


def source_of(network: ResnetGenerator, ends: PixelEnds | None = None, direction: str = "a2b") -> GeneratorSource:
    return GeneratorSource(network, Path("G.pth"), f"G-{direction}", direction, 32, "0" * 64, {}, ends or PixelEnds())


@pytest.fixture(scope="session")
def library() -> None:
    """Fetches ONNX Runtime Web, or skips the test where npm is missing or reaches no registry."""
    try:
        runtime_files(NAMES, None)
    except UserError as error:
        pytest.skip(str(error))


def picture(path: Path, width: int, height: int) -> Path:
    """Draw a smooth picture with a transparent corner."""
    y, x = np.mgrid[:height, :width]
    values = np.stack(
        [127 + 120 * np.sin(x / 9), 127 + 120 * np.cos(y / 7), 255 * x / width, np.full(x.shape, 255)], -1
    )
    values[: height // 4, : width // 4, 3] = 0
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def on_white(path: Path) -> Any:
    with Image.open(path) as image:
        layer = image.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB"))


def choose(page: "Page", path: Path) -> None:
    """Give a file to the page, and wait for its translation."""
    before = int(page.evaluate("Number(document.body.dataset.done || 0)"))
    page.set_input_files("#file", path)
    wait_for(
        page,
        f"Number(document.body.dataset.done || 0) > {before} || !document.querySelector('#trouble').hidden",
        WAIT_S,
    )
    assert page.is_hidden("#trouble"), page.inner_text("#trouble")


def saved(page: "Page") -> tuple[str, Values]:
    with page.expect_download() as download:
        page.click("#save")
    with Image.open(download.value.path()) as image:
        return download.value.suggested_filename, np.asarray(image.convert("RGB")).astype(np.float64)


def ready(page: "Page", address: str) -> str:
    page.goto(address, timeout=WAIT_S * 1000)
    wait_for(page, "document.body.dataset.backend || !document.querySelector('#trouble').hidden", WAIT_S)
    return page.inner_text("#engine")


def exact(source: GeneratorSource, samples: Any) -> Values:
    return in_pytorch(source.network, samples[None], source.ends)[0]


@pytest.fixture(autouse=True)
def _packing_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compresses 37 MB of WebAssembly less; a browser unpacks it the same."""
    monkeypatch.setattr(web_page, "_COMPRESSION", 1)


@needs_browser
def test_a_page_from_the_disk_without_network_translates_as_pytorch_does(
    trained_run: Path, tmp_path: Path, library: None
) -> None:
    sources = load_sources(trained_run, "both", [])
    write_web_page(sources, tmp_path / "page.html", PageOptions(label_a="photograph", label_b="drawing"))
    with opened_browser(offline=True) as (page, errors):
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        said = ready(page, (tmp_path / "page.html").as_uri())
        assert re.match(
            r"Computes by WebAssembly with 1 thread: \d\d\.\d dB of PSNR to PyTorch on a test picture\.", said
        )
        assert "WebGPU is not used: " in said, "a fallback is said"
        page.select_option("#size", "own")

        choose(page, file := picture(tmp_path / "one.png", 50, 37))
        name, found = saved(page)
        assert name == "one-a2b.png"
        padded = np.pad(on_white(file), ((0, 3), (0, 2), (0, 0)), "reflect")
        expected = exact(sources[0], padded)[:37, :50]
        parity = Parity.between(found, expected)
        print(f"page, int8 weights, against PyTorch: {parity}; {page.inner_text('#facts')}")
        assert parity.psnr_db > 40
        content = serialised(
            as_computed(float32_graph(sources[0].network), packed_tensors(float32_graph(sources[0].network), "int8"))
        )
        assert np.abs(found - in_onnxruntime(content, padded[None])[0, :37, :50]).max() < 0.6, "it only rounds"

        page.focus("#slider")
        for key, cut in (("Home", "0%"), ("ArrowRight", "1%"), ("End", "100%")):
            page.keyboard.press(key)
            assert page.evaluate("document.querySelector('#stage').style.getPropertyValue('--cut')") == cut
        assert (
            page.get_attribute("#slider", "aria-valuetext") == "picture on the left 100 %, translation on the right 0 %"
        )

        page.click("#back")
        wait_for(page, "document.body.dataset.done === '2'", WAIT_S)
        name, back = saved(page)
        assert name == "one-a2b-b2a.png"
        repadded = np.pad(found.astype(np.uint8), ((0, 3), (0, 2), (0, 0)), "reflect")
        assert Parity.between(back, exact(sources[1], repadded)[:37, :50]).psnr_db > 40

        (tmp_path / "photo.jpg").write_text("no picture")
        page.set_input_files("#file", tmp_path / "photo.jpg")
        wait_for(page, "!document.querySelector('#trouble').hidden")
        assert page.inner_text("#trouble").startswith("photo.jpg is no picture that this browser can read")

        page.select_option("#backend", "webgpu")  # by name it is used or refused
        wait_for(page, "document.querySelector('#trouble').textContent.startsWith('WebGPU cannot be used: ')", WAIT_S)
        assert re.search(r": .*\. Choose another under", page.inner_text("#trouble"))
        assert page.evaluate("document.body.dataset.backend") is None

        assert {url.partition(":")[0] for url in requests} <= {"file", "blob", "data"}
        assert [url for url in requests if url.startswith("file:")] == [(tmp_path / "page.html").as_uri()]
        assert errors == []


def small_generator(channels: int = 3) -> ResnetGenerator:
    torch.manual_seed(0)
    network = ResnetGenerator(inputs=channels, outputs=channels, width=4, blocks=2).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.2)
    return network


@pytest.mark.slow
@needs_browser
def test_tiles_cancelling_the_camera_and_a_narrow_dark_screen(tmp_path: Path, library: None) -> None:
    """Translates grey pictures, whose sides a browser turns to grey as Pillow does."""
    source = source_of(small_generator(1), PixelEnds(GREY, GREY), "one way")
    write_web_page([source], tmp_path / "page.html", PageOptions(weights="float16", webgpu=False))
    with opened_browser(360, 740, FAKE_CAMERA, offline=True) as (page, errors):
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        assert "WebGPU is not used: this page was written without it." in ready(page, (tmp_path / "page.html").as_uri())
        page.select_option("#size", "own")
        page.select_option("#passes", "tiles")
        choose(page, file := picture(tmp_path / "wide.png", 600, 40))
        assert "in 2 tiles (approximate)" in page.inner_text("#facts")
        assert "approximate" in page.inner_text("#plan")
        _, tiled = saved(page)
        page.select_option("#passes", "one")
        choose(page, file)
        assert "in one pass" in page.inner_text("#facts")
        _, whole = saved(page)
        expected = exact(source, np.asarray(Image.fromarray(on_white(file)).convert("L"))[..., None])
        assert Parity.between(whole, expected.repeat(3, -1)).psnr_db > 40
        near = Parity.between(tiled, whole)
        print(f"tiles against one pass: {near}")
        assert 20 < near.psnr_db < 60, "each tile has statistics of its own"

        unnamed = page.evaluate(
            "[...document.querySelectorAll('button, input, select, progress, video, canvas')]"
            ".filter(e => !e.closest('[hidden]') && !(e.labels?.length || e.ariaLabel || e.textContent.trim()))"
            ".map(e => e.id)"
        )
        assert unnamed == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark == "rgb(16, 19, 23)"

        page.click("#camera")
        wait_for(page, "document.querySelector('video').videoWidth > 0", WAIT_S)
        page.select_option("#size", "32")
        done = page.evaluate("document.body.dataset.done")
        page.focus("#shoot")
        page.keyboard.press("Enter")
        wait_for(page, f"document.body.dataset.done > {done}", WAIT_S)
        assert page.inner_text("#name").startswith("camera.png, ")
        assert page.is_hidden("#viewfinder")
        assert page.evaluate("document.activeElement.id") == "camera", "what is hidden loses the focus"

        page.select_option("#size", "own")
        page.set_input_files("#file", picture(tmp_path / "large.png", 2400, 1600))
        wait_for(page, "!document.querySelector('#cancel').hidden", WAIT_S)
        assert page.get_attribute("#translate", "aria-disabled") == "true"
        page.focus("#cancel")
        page.keyboard.press("Enter")
        wait_for(page, "document.querySelector('#said').textContent === 'Cancelled.'", WAIT_S)
        assert page.evaluate("document.activeElement.id") == "translate"
        assert page.is_hidden("#trouble")
        wait_for(page, "document.body.dataset.backend === 'wasm'", WAIT_S)
        page.select_option("#size", "32")
        choose(page, file)
        assert errors == []


class Isolating(SimpleHTTPRequestHandler):
    """Serves files to pages that are isolated from others, which may then have threads."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Isolating, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
@needs_browser
def test_beside_its_files_a_page_has_threads_loads_what_it_needs_and_misses_what_is_gone(
    tmp_path: Path, library: None
) -> None:
    source = source_of(small_generator())
    written = write_web_page([source], tmp_path / "page.html", PageOptions(weights="float16", beside=True))
    assert written.beside is not None
    with opened_browser() as (page, errors), served(tmp_path) as address:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        assert re.match(r"Computes by WebAssembly with [2-8] threads", ready(page, f"{address}/page.html"))
        choose(page, file := picture(tmp_path / "one.png", 32, 32))
        assert Parity.between(saved(page)[1], exact(source, on_white(file))).psnr_db > 40
        names = {url.rpartition("/")[2] for url in requests if url.startswith("http")}
        assert names - {"favicon.ico"} == {
            "page.html",
            "model-a2b.bin",
            "wasm-library.bin",
            "wasm-loader.bin",
            "wasm-wasm.bin",
        }
        assert not [url for url in requests if not url.startswith((address, "blob:", "data:"))]

        (written.beside / "model-a2b.bin").write_bytes((written.beside / "wasm-loader.bin").read_bytes())
        page.reload()
        wait_for(page, "!document.querySelector('#trouble').hidden", WAIT_S)
        assert page.inner_text("#trouble").startswith("This page is incomplete: model-a2b has ")
        (written.beside / "model-a2b.bin").unlink()
        page.reload()
        wait_for(page, "!document.querySelector('#trouble').hidden", WAIT_S)
        assert "model-a2b.bin is missing in the folder page_files beside this page (status 404)" in page.inner_text(
            "#trouble"
        )
        page.goto((tmp_path / "page.html").as_uri())
        wait_for(page, "!document.querySelector('#trouble').hidden", WAIT_S)
        assert "Put both on a web server, or have the page written as one file." in page.inner_text("#trouble")
        assert [line for line in errors if "404" not in line] == []


@pytest.mark.slow
@needs_browser
def test_on_webgpu_every_operator_runs_there_and_as_pytorch_does(tmp_path: Path, library: None) -> None:
    """Computes by Chromium's GPU in software, SwiftShader, which a page takes only where it is told to."""
    source = source_of(small_generator())
    write_web_page([source], tmp_path / "page.html", PageOptions(weights="float16"))
    with opened_browser(arguments=SWIFTSHADER, offline=True) as (page, errors):
        said = ready(page, f"{(tmp_path / 'page.html').as_uri()}#backend=webgpu")
        assert re.match(r"Computes by WebGPU \(google swiftshader, in software\): \d\d\.\d dB", said), said
        assert page.evaluate("document.body.dataset.backend") == "webgpu"
        choose(page, file := picture(tmp_path / "one.png", 32, 32))
        assert "by WebGPU" in page.inner_text("#facts")
        parity = Parity.between(saved(page)[1], exact(source, on_white(file)))
        print(f"WebGPU in software: {parity}; {page.inner_text('#facts')}")
        assert parity.psnr_db > 40
        page.select_option("#backend", "auto")
        wait_for(page, "document.body.dataset.backend === 'wasm'", WAIT_S)
        assert "WebGPU is not used: it runs in software here." in page.inner_text("#engine")
        assert errors == []
