"""Holds the service to what it translates, what it tells, and the one line in which it refuses."""

import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cyclegan_fast.images.pixel_type import PixelType, SampleArray
from cyclegan_fast.translation.translator import NotFinite
from export.engines.engine_card import Profile
from export.serving import server
from export.serving.service_options import BatchOptions
from tests.export.serving.service import (
    Service,
    as_file,
    model_of,
    negative,
    picture,
    pixels_in,
    running,
    upside_down,
    wait_until,
)

GREY_16 = PixelType(1, "uint16", 0, 4095)
FOUR_FLOATS = PixelType(4, "float32", -1, 1)


@pytest.fixture(scope="module")
def service() -> Any:
    deep = model_of(lambda x: 4095 - x, "deep", "b2a", (GREY_16, GREY_16))
    with running([model_of(), deep, model_of(upside_down, "turned", None)]) as found:
        yield found


# --- translations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("sides", [(20, 28), (21, 27), (5, 9)])
def test_an_image_of_any_size_is_translated(service: Service, name: str, sides: tuple[int, int]) -> None:
    pixels = picture(*sides)
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    reply = service.translate(as_file(pixels, name, **options), "?direction=a2b")
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    assert np.array_equal(pixels_in(reply.body), 255 - pixels)
    assert reply.headers["x-model"] == "negative"
    assert reply.headers["cache-control"] == "no-store"


def test_jpeg_in_and_out_is_near(service: Service) -> None:
    pixels = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    reply = service.translate(as_file(pixels, "JPEG"), "?model=negative", Accept="image/jpeg")
    assert reply.headers["content-type"] == "image/jpeg"
    assert reply.body[:3] == b"\xff\xd8\xff"
    assert np.abs(pixels_in(reply.body).astype(int) - (255 - pixels)).max() <= 3


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "image/png"),
        ("*/*", "image/png"),
        ("image/*", "image/png"),
        ("text/html,image/webp;q=0.9,*/*;q=0.8", "image/webp"),
        ("image/jpeg;q=0.5, image/tiff", "image/tiff"),
        ("image/png;q=0, image/*", "image/jpeg"),
        ("image/gif", None),
        ("text/html", None),
        ("image/png;q=nan", None),
        (";;,,=", None),
    ],
)
def test_the_answer_is_of_a_type_that_is_accepted(service: Service, accept: str, expected: str | None) -> None:
    reply = service.translate(as_file(picture()), "?direction=a2b", Accept=accept)
    if expected is None:
        assert reply.status == 406
        assert "image/png, image/jpeg, image/webp or image/tiff" in reply.error
        return
    assert reply.headers["content-type"] == expected
    if expected in ("image/png", "image/tiff"):
        assert np.array_equal(pixels_in(reply.body), 255 - picture())


def test_a_form_is_taken_whatever_its_file_is_called(service: Service) -> None:
    content, edge = as_file(picture()), b"edge"
    for name in ("photo.png", "../../etc/passwd", "a\\..\\b", "/dev/null", "", "x" * 3000):
        head = f'Content-Disposition: form-data; name="image"; filename="{name}"'.encode()
        other = b'Content-Disposition: form-data; name="note"\r\n\r\nhello'
        body = b"--edge\r\n" + other + b"\r\n--edge\r\n" + head + b"\r\n\r\n" + content + b"\r\n--" + edge + b"--\r\n"
        reply = service.translate(body, "?direction=a2b", Content_Type="multipart/form-data; boundary=edge")
        assert reply.status == 200, (name, reply.body)
        assert np.array_equal(pixels_in(reply.body), 255 - picture())


def test_an_image_is_resized_where_that_is_asked_for(service: Service) -> None:
    from cyclegan_fast.data.preparation import resize_samples

    reply = service.translate(as_file(picture(40, 60)), "?direction=a2b&size=32")
    assert np.array_equal(pixels_in(reply.body), 255 - resize_samples(picture(40, 60), 32, 32))


def test_an_image_that_lies_on_its_side_comes_back_upright(service: Service) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    pixels = picture(20, 28)
    content = as_file(pixels, exif=exif)
    place = content.index(b"eXIf") - 4
    length = 12 + int.from_bytes(content[place : place + 4], "big")
    end = content.index(b"IEND") - 4
    behind = content[:place] + content[place + length : end] + content[place : place + length] + content[end:]
    for sent in (content, behind):
        reply = service.translate(sent, "?direction=a2b")
        assert np.array_equal(pixels_in(reply.body), 255 - np.rot90(pixels, -1))


def test_samples_of_16_bits_stay_what_they_are(service: Service) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (12, 16), np.uint16)
    for name, accept, expected in (("TIFF", "", "image/png"), ("PNG", "image/tiff", "image/tiff")):
        reply = service.translate(as_file(values, name), "?direction=b2a", Accept=accept)
        assert reply.headers["content-type"] == expected
        found = pixels_in(reply.body)
        assert (found.dtype, found.shape) == (np.uint16, (12, 16))
        assert np.array_equal(found, 4095 - values)
    refused = service.translate(as_file(picture()), "?direction=b2a")
    assert refused.status == 415
    assert refused.error.startswith("the image cannot be used: its samples are uint8, and the run takes 1 channel")
    assert service.translate(as_file(values), "?direction=b2a", Accept="image/jpeg").status == 406


def test_missing_values_stay_missing() -> None:
    """Values of four channels and floating point, some of them NaN, come back in a TIFF."""
    import tifffile

    values = np.random.default_rng(0).uniform(-1, 1, (8, 12, 4)).astype(np.float32)
    values[2, 3] = np.nan
    content = io.BytesIO()
    tifffile.imwrite(content, values, photometric="minisblack", planarconfig="contig", extrasamples=[0] * 3)
    with running([model_of(lambda x: -x, kinds=(FOUR_FLOATS, FOUR_FLOATS))]) as service:
        reply = service.translate(content.getvalue())
        assert reply.headers["content-type"] == "image/tiff", reply.body
        assert np.array_equal(tifffile.imread(io.BytesIO(reply.body)), -values, equal_nan=True)


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("", 422, "3 generators could be meant: give model or direction, of negative (a2b), deep (b2a) and turned"),
        ("?model=absent", 404, "no generator called absent is served: there is negative (a2b)"),
        ("?model=%0a%3Cb%3E", 404, "no generator called ??b? is served"),
        ("?model=negative&direction=b2a", 404, "no generator called negative of direction b2a"),
        ("?direction=c2d", 422, "direction: Input should be 'a2b' or 'b2a'"),
        ("?direction=a2b&size=30", 422, "size: Input should be a multiple of 4"),
        ("?direction=a2b&size=4", 422, "size: Input should be greater than or equal to 8"),
        ("?direction=a2b&size=9999999999999999999996", 422, "size: Input should be less than or equal to 65536"),
        ("?direction=a2b&size=2048", 422, "2048x2048 pixels would be translated, more than 1048576"),
    ],
)
def test_what_nobody_serves_is_refused(service: Service, query: str, status: int, said: str) -> None:
    reply = service.translate(as_file(picture()), query)
    assert reply.status == status
    assert reply.error.startswith(said)


def test_an_engine_gets_the_sizes_that_it_takes() -> None:
    one = model_of(name="one", direction="a2b", profile=Profile((1, 16, 16), (1, 16, 16), (2, 16, 16)))
    many = model_of(name="many", direction="b2a", profile=Profile((1, 16, 16), (1, 16, 16), (2, 32, 32)))
    with running([one, many]) as service:
        reply = service.translate(as_file(picture(40, 60)), "?model=one")
        assert pixels_in(reply.body).shape == (16, 16, 3)
        assert service.translate(as_file(picture(18, 30)), "?model=many").status == 200
        refused = service.translate(as_file(picture(40, 60)), "?model=many")
        assert refused.status == 422
        assert refused.error.startswith("many takes 1 to 2 images of 16x16 to 32x32, and this would be 60x40")


def test_a_translation_that_is_not_finite_fails_alone() -> None:
    def fails_for_black(samples: SampleArray) -> SampleArray:
        for index, image in enumerate(samples):
            if not image.any():
                raise NotFinite(index)
        return negative(samples)

    batches = BatchOptions(batch_size=4, batch_wait_ms=500)
    images = [picture(seed=seed) for seed in range(3)] + [np.zeros_like(picture())]
    with running([model_of(fails_for_black)], batches) as service, ThreadPoolExecutor(4) as clients:
        replies = list(clients.map(service.translate, map(as_file, images)))
    assert [reply.status for reply in replies] == [200, 200, 200, 500]
    assert "not finite" in replies[3].error
    for image, reply in zip(images[:3], replies[:3], strict=True):
        assert np.array_equal(pixels_in(reply.body), 255 - image)


def test_a_failure_of_our_own_is_one_line_and_logged() -> None:
    def fails(samples: SampleArray) -> SampleArray:
        if samples.shape[1] == 20:
            raise KeyError("a secret")
        return samples

    with running([model_of(fails)]) as service:
        reply = service.translate(as_file(picture()))
        assert (reply.status, reply.error) == (500, "the service failed; its log says why")
        assert service.translate(as_file(picture(24, 24))).status == 200
    (failure,) = [event for event in service.events if event["event"] == "failure"]
    assert failure["error"] == "KeyError('a secret')"
    assert "test_service.py" in failure["where"]


def test_a_translator_that_loses_an_image_does_not_end_the_batches() -> None:
    def loses(samples: Any) -> Any:
        return samples[:0] if samples.shape[1] == 20 else negative(samples)

    with running([model_of(loses)]) as service:
        assert service.translate(as_file(picture())).status == 500
        assert service.translate(as_file(picture(16, 16))).status == 200


# --- batches ---------------------------------------------------------------------------------------------------------


def test_requests_of_one_size_share_a_batch_and_get_their_own_answers() -> None:
    seen: list[tuple[int, ...]] = []

    def watched(samples: SampleArray) -> SampleArray:
        seen.append(samples.shape)
        return negative(samples)

    images = [picture(20, 28, seed) for seed in range(8)] + [picture(32, 16, seed) for seed in range(3)]
    batches = BatchOptions(batch_size=4, batch_wait_ms=1000)
    with running([model_of(watched)], batches) as service, ThreadPoolExecutor(11) as clients:
        replies = list(clients.map(service.translate, map(as_file, images)))
        assert service.figure('cyclegan_fast_batch_images_sum{model="negative"}') == 4 * 8 + 3 * 3
    for image, reply in zip(images, replies, strict=True):
        assert np.array_equal(pixels_in(reply.body), 255 - image)
    assert sorted(seen) == [(3, 32, 16, 3), (4, 20, 28, 3), (4, 20, 28, 3)]
    assert {event["batch"] for event in service.events if event["event"] == "request" and "batch" in event} == {3, 4}


def test_large_images_go_one_by_one() -> None:
    assert model_of().most_at_once(256, 256, 64) == 8
    assert model_of().most_at_once(256, 256, 4) == 4
    assert model_of().most_at_once(2048, 2048, 64) == 1
    profile = Profile((1, 16, 16), (1, 16, 16), (2, 512, 512))
    assert model_of(profile=profile).most_at_once(16, 16, 64) == 2


# --- what it tells ---------------------------------------------------------------------------------------------------


def test_the_addresses_answer(service: Service) -> None:
    assert service.ask("GET", "/health/live").body == b'{"status":"live"}'
    assert service.ask("GET", "/health/ready").body == b'{"status":"ready"}'
    models = service.ask("GET", "/models").body.decode()
    assert '"name":"deep","direction":"b2a","takes":"1 channel, uint16, 0 to 4095"' in models
    for path, method, status in (("/nowhere", "GET", 404), ("/translate", "GET", 405), ("/models", "DELETE", 405)):
        reply = service.ask(method, path)
        assert reply.status == status
        assert "there is POST /translate, and GET /models, /health/live" in reply.error
    assert service.ask("GET", "/../../etc/passwd").status == 404


def test_openapi_says_what_is_taken_and_given(service: Service) -> None:
    page = json.loads(service.ask("GET", "/openapi.json").body)
    translate = page["paths"]["/translate"]["post"]
    assert {*translate["requestBody"]["content"]} == {
        *("image/png", "image/jpeg", "image/webp", "image/tiff", "multipart/form-data"),
    }
    assert [each["name"] for each in translate["parameters"]] == ["direction", "model", "size"]
    assert {"200", "400", "404", "406", "408", "413", "415", "422", "429", "503", "504"} <= {*translate["responses"]}
    assert {*page["paths"]} == {"/translate", "/models", "/health/live", "/health/ready", "/metrics"}


def test_the_page_asks_nothing_of_others(service: Service) -> None:
    reply = service.ask("GET", "/docs")
    assert reply.body == service.ask("GET", "/").body
    text = reply.body.decode()
    assert "http://" not in text
    assert "https://" not in text
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert len(re.findall("'sha256-[^']+'", policy)) == 2


def test_figures_count_what_happens() -> None:
    with running() as service:
        body = as_file(picture())
        sent = sum(len(service.translate(body).body) for _ in range(3))
        service.translate(b"nothing")
        service.ask("GET", "/x" * 50)
        assert service.figure('cyclegan_fast_requests_total{path="/translate",status="200"}') == 3
        assert service.figure('cyclegan_fast_requests_total{path="/translate",status="415"}') == 1
        assert service.figure('cyclegan_fast_requests_total{path="other",status="404"}') == 1
        assert service.figure("cyclegan_fast_sent_bytes_total") == sent
        assert service.figure("cyclegan_fast_uploaded_bytes_total") == 3 * len(body) + 7
        assert service.figure("cyclegan_fast_request_seconds_count") == 4
        assert service.figure("cyclegan_fast_in_flight") == 0
        assert service.figure("cyclegan_fast_waiting_images") == 0


def test_the_log_has_a_line_for_each_request_and_nothing_of_images() -> None:
    with running() as service:
        secret = as_file(picture(), "JPEG", comment=b"a patient")
        service.translate(secret, "?direction=a2b", Content_Type="image/jpeg")
        service.ask("POST", "/%0aforged%22" + "y" * 300)
    first, second = (event for event in service.events if event["event"] == "request")
    assert first["client"] == "127.0.0.1"
    assert (first["status"], first["model"], first["size"], first["batch"]) == (200, "negative", "28x20", 1)
    assert first["bytes_in"] == len(secret)
    assert 0 <= first["compute_ms"] <= first["ms"]
    assert second["status"] == 404
    assert len(second["path"]) == 203
    assert "patient" not in service.log.getvalue()
    assert service.log.getvalue().count("\n") == len(service.events)


# --- an end ----------------------------------------------------------------------------------------------------------


def test_what_is_in_flight_ends_and_nothing_new_begins() -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(samples: SampleArray) -> SampleArray:
        if samples.shape[1] == 20:
            begun.set()
            assert may_end.wait(20)
        return negative(samples)

    with running([model_of(slow)]) as service, ThreadPoolExecutor(1) as client:
        reply = client.submit(service.translate, as_file(picture()))
        assert begun.wait(20)
        kept = service.connection()
        kept.request("GET", "/health/ready")
        assert kept.getresponse().read() == b'{"status":"ready"}'
        service.stop.set()
        wait_until(lambda: service.gate.is_draining)
        kept.request("GET", "/health/ready")
        answer = kept.getresponse()
        assert (answer.status, answer.read()) == (503, b'{"error": "the service is stopping"}\n')
        kept.close()
        assert service.ask("GET", "/health/live").status == 200
        refused = service.translate(as_file(picture(16, 16)))
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        may_end.set()
        assert np.array_equal(pixels_in(reply.result(20).body), 255 - picture())
    assert service.events[-1] | {"time": ""} == {"time": "", "event": "stopped", "cut_off": 0}


def test_what_does_not_end_in_time_is_cut_off_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CLOSING_S", 1)
    begun, may_end = threading.Event(), threading.Event()

    def slow(samples: SampleArray) -> SampleArray:
        begun.set()
        assert may_end.wait(30)
        return samples

    with running([model_of(slow)], grace_s=0.2, expected_status=1) as service, ThreadPoolExecutor(1) as client:
        lost = client.submit(service.translate, as_file(picture()))
        assert begun.wait(20)
        service.stop.set()
        reply = lost.result(20)
        assert (reply.status, reply.error) == (503, "the service stopped before the translation ended")
        may_end.set()
    assert service.events[-1]["message"] == "1 request did not end within 0.2 seconds"
