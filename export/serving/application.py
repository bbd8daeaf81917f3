"""Joins the parts of the service: its addresses, what stands in their documentation, and what one translation takes.

Answers are a translation, or one line of JSON, {"error": "..."}; see refusal.py for what is refused.
"""

import asyncio
import base64
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive

from cyclegan_fast.conventions import LONGEST_SIDE, SIDE_MULTIPLE, SMALLEST_GENERATOR_SIDE, Direction
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.sockets import AllowedHosts
from cyclegan_fast.translation.prepared import with_missing
from cyclegan_fast.version import __version__
from export.serving.answers import MEDIA_TYPES, accepted, encoded_answer
from export.serving.batching import BatchedResult, Batcher
from export.serving.forms import FIELD, image_in
from export.serving.gate import RECORD, TRANSLATE, Gate
from export.serving.json_lines import JsonLines
from export.serving.measurements import Measurements
from export.serving.models import ServedModel, model_asked_for
from export.serving.refusal import RefusalAnswer, RequestRefused, error_body, phrase_of
from export.serving.service_options import BatchOptions, ServingLimits
from export.serving.uploads import decode_upload, read_body

_Result = TypeVar("_Result")
_PAGE = Path(__file__).with_name("page.html")
DECODERS = min(4, os.cpu_count() or 1)
"""threads that decode what clients send and encode what they get"""
_ERROR = {"content": {"application/json": {"example": {"error": "one line that says what is wrong"}}}}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REFUSALS = (400, 404, 406, 408, 413, 415, 421, 422, 429, 500, 503, 504)


def make_application(
    models: Sequence[ServedModel],
    limits: ServingLimits,
    batches: BatchOptions,
    lines: JsonLines,
    hosts: AllowedHosts,
) -> Gate:
    """Return the service as an ASGI application, which must be run with its lifespan."""
    service = _Service(models, limits, batches, lines)
    api = FastAPI(
        title="cyclegan-fast",
        version=__version__,
        description="Translates images with trained generators.",
        lifespan=service.lifespan,
        docs_url=None,  # FastAPI's own page fetches its scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_addresses(api, service)
    _answer_errors_in_one_line(api)
    gate = Gate(api, limits, lines, hosts)
    service.gate = gate
    gate.measurements = service.measurements
    return gate


class _Service:
    """Holds what the addresses share."""

    def __init__(
        self, models: Sequence[ServedModel], limits: ServingLimits, batches: BatchOptions, lines: JsonLines
    ) -> None:
        self.models, self.limits = models, limits
        self.gate: Gate | None = None
        self._batches = batches
        self._batchers: dict[str, Batcher] = {}
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="images")
        self.measurements = Measurements(
            lambda: self.gate.in_flight if self.gate is not None else 0,
            lambda: sum(batcher.waiting for batcher in self._batchers.values()),
            lambda: lines.lost,
        )

    @property
    def is_ready(self) -> bool:
        """Tells whether translations are taken: nobody has asked the service to stop."""
        return self.gate is not None and not self.gate.is_draining

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Make what gathers batches, in the loop that serves; end the threads behind it."""
        for model in self.models:
            most = partial(model.most_at_once, batch_size=self._batches.batch_size)
            self._batchers[model.name] = Batcher(model.translator, most, self._batches.batch_wait_ms / 1000, model.name)
        yield
        for batcher in self._batchers.values():
            await batcher.close()
        self._pool.shutdown(cancel_futures=True)

    async def translate(self, request: Request, model: ServedModel, size: int | None) -> Response:
        """Answer one request for a translation."""
        record = request.scope["state"][RECORD]
        record["model"] = model.name
        media_type = accepted(request.headers.get("accept"), model.translator.target)
        body = await read_body(request.receive, self.limits)
        record["bytes_in"] = len(body)
        self.measurements.uploaded.inc(len(body))
        content_type = request.headers.get("content-type")
        upload = await self._in_thread(lambda: decode_upload(image_in(content_type, body), model, size, self.limits))
        record["size"] = f"{upload.width}x{upload.height}"
        result = await self._unless_gone(request, self._batchers[model.name](upload.samples))
        self._measure(record, model, result)
        target = model.translator.target
        samples = with_missing(result.samples[: upload.height, : upload.width], upload.missing, target)
        content = await self._in_thread(partial(encoded_answer, samples, target, media_type))
        self.measurements.sent.inc(len(content))
        headers = {"x-model": model.name.encode("ascii", "replace").decode(), "cache-control": "no-store"}
        return Response(content, media_type=media_type, headers=headers)

    def _measure(self, record: dict[str, Any], model: ServedModel, result: BatchedResult) -> None:
        record |= {
            "batch": result.batch,
            "queue_ms": round(result.queue_s * 1000, 1),
            "compute_ms": round(result.compute_s * 1000, 1),
        }
        self.measurements.queue_seconds.observe(result.queue_s)
        self.measurements.compute_seconds.labels(model.name).observe(result.compute_s)
        self.measurements.batch_size.labels(model.name).observe(result.batch)

    async def _in_thread(self, function: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    async def _unless_gone(self, request: Request, translation: Any) -> BatchedResult:
        """Return a translation, unless its client goes away first: nothing is translated for nobody."""
        working = asyncio.ensure_future(translation)
        leaving = asyncio.ensure_future(_left(request.receive))
        try:
            done, _ = await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if working not in done:
                raise RequestRefused(499, "the client went away")
            result: BatchedResult = working.result()
            return result
        except UserError as error:
            raise RequestRefused(500, str(error)) from error
        finally:
            working.cancel()
            leaving.cancel()


async def _left(receive: Receive) -> None:
    """Wait until the client of a request, whose body was read, goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass


# --- addresses -------------------------------------------------------------------------------------------------------


def _add_addresses(api: FastAPI, service: _Service) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"description": phrase_of(status), **_ERROR} for status in _REFUSALS
    }
    taken = dict.fromkeys(MEDIA_TYPES, _BINARY)
    form = {"schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _BINARY["schema"]}}}
    names = [model.name for model in service.models]

    @api.post(
        TRANSLATE,
        summary="Translate an image",
        response_class=Response,
        responses={200: {"description": "the translation", "content": taken}, **refusals},
        openapi_extra={"requestBody": {"required": True, "content": {**taken, "multipart/form-data": form}}},
    )
    async def translate(
        request: Request,
        direction: Annotated[Direction | None, Query(description="needed where several are served")] = None,
        model: Annotated[
            str | None, Query(max_length=255, description="a name of /models; needed as above", examples=names)
        ] = None,
        size: Annotated[
            int | None,
            Query(
                ge=SMALLEST_GENERATOR_SIDE,
                le=LONGEST_SIDE,
                multiple_of=SIDE_MULTIPLE,
                description="side of the square that the image is resized to; by default it keeps its own size",
                examples=[256],
            ),
        ] = None,
    ) -> Response:
        """Send the image as the body, or in the field `image` of a form; `Accept` chooses the answer's format."""
        return await service.translate(request, model_asked_for(service.models, model, direction), size)

    @api.get("/models", summary="List the generators that are served")
    async def models() -> list[dict[str, Any]]:
        return [model.described() for model in service.models]

    @api.get("/health/live", summary="Tell whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @api.get("/health/ready", summary="Tell whether translations are taken", responses={503: refusals[503]})
    async def ready() -> Response:
        if not service.is_ready:
            raise RequestRefused(503, "the service is stopping", retry_s=5)
        return JSONResponse({"status": "ready"})

    @api.get("/metrics", summary="Give figures in Prometheus's text format", response_class=Response)
    async def metrics() -> Response:
        return Response(service.measurements.as_text(), media_type=service.measurements.media_type)

    page, policy = _page_and_policy()

    @api.get("/", include_in_schema=False)
    @api.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy, "x-content-type-options": "nosniff"})


def _page_and_policy() -> tuple[str, str]:
    """Return the page of documentation, and the policy by which a browser runs its own script and no other."""
    page = _PAGE.read_text(encoding="utf-8")
    digests = {
        tag: "'sha256-" + base64.b64encode(hashlib.sha256(found.encode()).digest()).decode() + "'"
        for tag, found in re.findall(r"<(script|style)>(.*?)</\1>", page, re.DOTALL)
    }
    policy = (
        f"default-src 'none'; script-src {digests['script']}; style-src {digests['style']}; img-src blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
    return page, policy


def _answer_errors_in_one_line(api: FastAPI) -> None:
    @api.exception_handler(RequestRefused)
    async def refused(request: Request, error: RequestRefused) -> RefusalAnswer:
        error.unread |= "bytes_in" not in request.scope["state"][RECORD]
        return RefusalAnswer(error)

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> RefusalAnswer:
        said = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()[:3])
        return RefusalAnswer(RequestRefused(422, said, unread=True))

    @api.exception_handler(HTTPException)
    async def not_there(_: Request, error: HTTPException) -> RefusalAnswer:
        known = f"POST {TRANSLATE}, and GET /models, /health/live, /health/ready, /metrics and /docs"
        return RefusalAnswer(
            RequestRefused(error.status_code, f"{phrase_of(error.status_code)}: there is {known}", unread=True),
            error.headers,
        )

    @api.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        del error  # the gate logs it
        return Response(error_body("the service failed; its log says why"), 500, media_type="application/json")
