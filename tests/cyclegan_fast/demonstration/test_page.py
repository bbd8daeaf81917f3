"""Drive the demo's page in a browser: translations have the bits of the command, and nobody else is asked anything.

Skipped without Gradio, which is no part of `dev` (CONTRIBUTING.md says why), or without Chromium.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.demonstration.examples import write_examples
from cyclegan_fast.demonstration.options import DemoLimits
from cyclegan_fast.demonstration.server import served_page, set_up_gradio
from cyclegan_fast.images.pixels import Pixels
from cyclegan_fast.system.sockets import AllowedHosts, bound_socket
from tests.cyclegan_fast.browser import needs_browser, opened_browser, wait_for
from tests.cyclegan_fast.demonstration.shown import by_translate, make_run, shown
from tests.cyclegan_fast.pictures import draw, pixels_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="Gradio is not installed: pip install -e '.[demo]'"),
]

LIMITS = DemoLimits(max_pixels=10_000, max_files=4)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture
def address(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serves the page of the run."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # which sets it back at the end
    kept = tmp_path / "kept"
    kept.mkdir()
    set_up_gradio(kept)
    from cyclegan_fast.demonstration.page import make_page

    demo = shown(run, LIMITS)
    page = make_page(demo, write_examples(run, kept / "examples", []), LIMITS)
    with bound_socket("127.0.0.1", 0) as listening:
        hosts = AllowedHosts.of(listening, ["gpu.lab"])
        with served_page(page, listening, LIMITS, hosts) as url:
            yield url


def pixels_shown(page: "Page", index: int) -> Pixels:
    """Return the pixels of one of the two pictures of the comparison, as the browser decodes them."""
    script = """async index => {
        const image = document.querySelectorAll("#comparison img")[index];
        await image.decode();
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        return [canvas.height, canvas.width, Array.from(data)];
    }"""
    height, width, values = page.evaluate(script, index)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def upload(page: "Page", field: str, files: list[Path]) -> None:
    """Give files to a field of the page, and wait until they are sent."""
    with page.expect_response(lambda response: "/upload?" in response.url):
        page.set_input_files(f"{field} input[type=file]", files)
    names = {"#picture": f"!!document.querySelector('{field} img')"}
    wait_for(page, names.get(field, f"document.querySelectorAll('{field} .file').length >= {len(files)}"))


def choose_checkpoint(page: "Page", name: str) -> None:
    page.click("#checkpoint input")
    page.get_by_role("option", name=name).click()


@needs_browser
def test_a_visitor_compares_translations_and_nobody_else_is_asked(tmp_path: Path, run: Path, address: str) -> None:
    image = draw(tmp_path / "in" / "odd.png", 45, 37)
    with opened_browser() as (page, errors):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#translate")
        upload(page, "#picture", [image])
        page.click("#translate")
        wait_for(page, "document.querySelectorAll('#comparison img').length == 2")
        (expected,) = by_translate(str(run), [image], tmp_path / "latest", "a2b")
        assert expected.std() > 10, "a flat picture would prove nothing"
        assert np.array_equal(pixels_shown(page, 0), pixels_of(image))
        assert np.array_equal(pixels_shown(page, 1), expected)

        # Another checkpoint, and an example, which brings its direction along.
        choose_checkpoint(page, "best")
        page.click("#examples-b2a button >> nth=1")
        wait_for(page, "document.querySelectorAll('#direction input')[1].checked")
        page.click("#translate")
        wait_for(page, "document.querySelector('#caption').innerText.includes('@best, b2a')")
        wait_for(page, "document.querySelectorAll('#comparison img')[1].naturalWidth == 40")
        (expected,) = by_translate(f"{run}@best", [tmp_path / "dots" / "testB" / "1.png"], tmp_path / "best", "b2a")
        assert np.array_equal(pixels_shown(page, 1), expected)

        assert errors == []
        elsewhere = [url for url in asked if not url.startswith(("blob:", "data:"))]
        assert {urlsplit(url).netloc for url in elsewhere} == {urlsplit(address).netloc}
        # A request that a script makes all the same does not leave the browser.
        refused = "fetch('http://127.0.0.1:9/x').then(() => 'sent', () => 'refused')"
        page.evaluate(refused)
        assert any("Content Security Policy" in error for error in errors)


@needs_browser
def test_a_batch_comes_back_as_an_archive(tmp_path: Path, run: Path, address: str) -> None:
    images = [draw(tmp_path / "in" / f"{seed}.png", 40 + seed, 36, seed=seed) for seed in range(2)]
    (tmp_path / "text.png").write_text("no image")
    with opened_browser() as (page, errors):
        page.goto(address)
        page.get_by_role("tab", name="A batch").click()
        upload(page, "#pictures", [*images, tmp_path / "text.png"])
        page.click("#translate-all")
        wait_for(page, "document.querySelector('#left-out').innerText.includes('text.png: not an image')")
        wait_for(page, "document.querySelectorAll('#gallery img').length == 2")
        with page.expect_download() as download:
            page.click("#archive a")
        with zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes())) as archive:
            made = [np.asarray(Image.open(archive.open(name))) for name in archive.namelist()]
        expected = by_translate(str(run), images, tmp_path / "out", "a2b")
        assert len(made) == 2
        assert all(np.array_equal(one, other) for one, other in zip(made, expected, strict=True))
        assert errors == []


@needs_browser
def test_refusals_are_read_on_the_page(tmp_path: Path, address: str) -> None:
    (tmp_path / "text.png").write_text("no image")
    files = {tmp_path / "text.png": "text.png: not an image", draw(tmp_path / "large.png", 101, 100): "101x100 pixels"}
    with opened_browser() as (page, _):
        page.goto(address)
        page.click("#translate")
        page.wait_for_selector("text=choose a picture first")
        for file, said in files.items():
            upload(page, "#picture", [file])
            page.click("#translate")
            page.wait_for_selector(f"text={said}")
            page.click("#picture [aria-label='Remove Image']")
        page.get_by_role("tab", name="A batch").click()
        upload(page, "#pictures", [draw(tmp_path / f"{seed}.png") for seed in range(5)])
        page.click("#translate-all")
        page.wait_for_selector("text=5 pictures were chosen, and a batch has 4 at most")


def answer_to(address: str, path: str) -> dict[str, Any]:
    """Ask for the translation of a picture by its path, as the page does with one that it has sent."""
    httpx = pytest.importorskip("httpx")

    with httpx.Client(base_url=address, trust_env=False) as client:
        config = client.get("/config").json()
        (button,) = [part["id"] for part in config["components"] if part["props"].get("elem_id") == "translate"]
        (event,) = [event["id"] for event in config["dependencies"] if [button, "click"] in event["targets"]]
        picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
        asked = {"data": [picture, "latest", "a2b", 1024], "fn_index": event, "session_hash": "anybody"}
        assert client.post("/gradio_api/queue/join", json=asked).status_code == 200
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "anybody"}) as answers:
            lines = (json.loads(line[5:]) for line in answers.iter_lines() if line.startswith("data:"))
            completed: dict[str, Any] = next(line for line in lines if line["msg"] == "process_completed")
    return completed


def test_files_of_the_machine_are_not_handed_out(address: str, run: Path, tmp_path: Path) -> None:
    httpx = pytest.importorskip("httpx")

    for path in (run / "config.yaml", Path("/etc/passwd"), Path(__file__)):
        assert httpx.get(f"{address}/gradio_api/file={path}", trust_env=False).status_code == 403
    picture = tmp_path / "dots" / "testA" / "0.png"
    answer = answer_to(address, str(picture))
    assert not answer["success"]
    assert "data" not in answer["output"]
    # The same picture where Gradio keeps what was sent is translated: the question is put as the page puts it.
    sent = draw(tmp_path / "kept" / "sent" / "0.png")
    assert answer_to(address, str(sent))["success"]


def test_a_page_of_somebody_else_reads_nothing_by_a_name_that_leads_here(address: str) -> None:
    """Gradio alone answers any name, which is why the shield looks at it."""
    httpx = pytest.importorskip("httpx")

    port = address.rpartition(":")[2]
    for host, status in ((f"evil.example:{port}", 421), (f"localhost:{port}", 200), ("GPU.lab", 200), ("", 421)):
        for path in ("/", "/config"):
            answer = httpx.get(f"{address}{path}", headers={"host": host}, trust_env=False)
            assert answer.status_code == status, host
            assert "access-control-allow-origin" not in answer.headers


def test_gradio_fetches_nothing_that_a_visitor_names(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    httpx = pytest.importorskip("httpx")

    fetched: list[str] = []
    monkeypatch.setattr("safehttpx.get", lambda url, *_, **__: fetched.append(url))
    monkeypatch.setattr("safehttpx.async_validate_url", lambda url, *_, **__: fetched.append(url))
    assert not answer_to(address, "http://pictures.invalid/x.png")["success"]
    elsewhere = ("gradio_api/file=http://pictures.invalid/x.png", "gradio_api/proxy=http://pictures.invalid/x.png")
    for path in (*elsewhere, "gradio_api/runs", "gradio_api/openapi.json", "docs", "monitoring", "login"):
        assert httpx.get(f"{address}/{path}", trust_env=False).status_code == 404, path
    assert fetched == []
