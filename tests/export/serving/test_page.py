"""Drives the page of the service in a browser: an image is translated, refusals are shown, and nobody else is asked."""

import os

import numpy as np

from tests.cyclegan_fast.browser import needs_browser, opened_browser, wait_for
from tests.export.serving.service import as_file, model_of, picture, running, upside_down


@needs_browser
def test_an_image_is_translated_on_the_page() -> None:
    pixels = picture(24, 32)
    with (
        running([model_of(), model_of(upside_down, "turned", "b2a")]) as service,
        opened_browser(width=420) as (page, errors),
    ):
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{service.port}/docs")
        wait_for(page, "document.querySelectorAll('#models tr').length === 2")
        assert page.inner_text("#models tr:last-child") == "turned\tb2a\t8-bit RGB\t8-bit RGB\t" + page.inner_text(
            "#models tr:last-child td:last-child"
        )
        page.select_option("#model", "turned")
        page.set_input_files("#image", [{"name": "photo.png", "mimeType": "image/png", "buffer": as_file(pixels)}])
        page.click("button")
        wait_for(page, "document.getElementById('after').naturalWidth > 0")
        found = page.evaluate(
            """() => {
              const image = document.getElementById("after"), canvas = document.createElement("canvas");
              [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
              const context = canvas.getContext("2d");
              context.drawImage(image, 0, 0);
              return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
            }"""
        )
        assert np.array_equal(np.array(found, np.uint8).reshape(24, 32, 4)[..., :3], pixels[::-1])
        assert page.inner_text("#said").startswith(f"{len(as_file(pixels[::-1], compress_level=1))} bytes of image/png")
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=f"{folder}/serving.png", full_page=True)
        page.set_input_files("#image", [{"name": "x.png", "mimeType": "image/png", "buffer": b"nothing"}])
        page.click("button")
        wait_for(page, "document.getElementById('said').textContent.startsWith('it is no image')")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it fits a narrow screen"
        outside = [url for url in asked if not url.startswith((f"http://127.0.0.1:{service.port}/", "blob:"))]
        assert outside == []
    assert [error for error in errors if "415" not in error and "favicon" not in error] == []
