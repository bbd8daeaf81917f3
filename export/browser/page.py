"""Writes a web page that translates pictures with trained generators, in one file or beside a folder of files."""

import base64
import gzip
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from cyclegan_fast.conventions import SIDE_MULTIPLE
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.progress import progress_bar
from cyclegan_fast.system.ranges import check_fields
from cyclegan_fast.version import __version__
from export.browser.runtime_package import BACKEND_FILES, ORT_WEB_VERSION, PageBackend, runtime_files
from export.source import ONE_WAY

if TYPE_CHECKING:
    from export.parity import Parity
    from export.source import GeneratorSource

StoredWeights = Literal["int8", "float16"]
"""Names how a page stores the weights of convolutions."""
_NEEDED = ("onnx", "onnxruntime")
_HERE = Path(__file__).parent
_COMPRESSION = 9
_EXAMPLE_SIDE = 256


@dataclass(frozen=True)
class PageOptions:
    """Says what a page is like."""

    weights: StoredWeights = "int8"
    """how the weights of convolutions are stored, for size; they are widened, and the page computes in float32"""
    beside: bool = False
    """write the weights and ONNX Runtime Web into a folder beside the page, for a web server: a visitor's browser loads
    only what it uses; by default all is inside the page, which then opens from a disk, too"""
    webgpu: bool = True
    """let the page compute by WebGPU where a browser has it; 5.5 MB of a page in one file"""
    runtime: Path | None = None
    """folder of the unpacked npm package onnxruntime-web, of the release that the command names, for machines without
    npm; by default npm fetches it once, into the user's cache"""
    title: str | None = None
    """title of the page; by default the run's name"""
    label_a: str = "A"
    """what images of domain A are called on the page, such as photograph"""
    label_b: str = "B"
    """what images of domain B are called on the page, such as map"""

    def __post_init__(self) -> None:
        check_fields(self, as_flags=True)


@dataclass(frozen=True)
class PageRow:
    """Says of one direction of a page how large its pack is in bytes, compressed, and how near it is to PyTorch."""

    name: str
    direction: str
    packed_bytes: int
    parity: "dict[str, Parity]"
    failure: str | None


@dataclass(frozen=True)
class WrittenPage:
    """Says what was written: the page's file and bytes, those of the folder beside it, and each direction."""

    path: Path
    page_bytes: int
    beside: Path | None
    beside_bytes: int
    rows: tuple[PageRow, ...]


def write_web_page(sources: "Sequence[GeneratorSource]", out: Path, options: PageOptions | None = None) -> WrittenPage:
    """Write a page of generators, and return what was written; the same checkpoint gives the same bytes.

    Args:
        sources: one or both directions of a run, from `export.source.load_sources`.
        out: the page's file, which ends in .html; with `beside` a folder of the same name in `_files` lies beside it.
        options: what the page is like.

    Raises UserError for pixels that a browser does not show, where ONNX Runtime Web cannot be had, and where the system
    does not write.
    """
    options = options or PageOptions()
    check_page_path(out)
    _check_pixels(sources)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        raise UserError(f"pages are made with {', '.join(missing)}: pip install {' '.join(missing)}")
    assets: dict[str, bytes] = {}
    backends: list[PageBackend] = ["wasm", "webgpu"] if options.webgpu else ["wasm"]
    files = runtime_files([name for backend in backends for name in BACKEND_FILES[backend]], options.runtime)
    rows, described = [], []
    for source in progress_bar(sources, desc="packing generators", unit=" directions"):
        content, row = _packed(source, options.weights)
        assets[f"model-{row.direction}"] = content
        rows.append(row)
        described.append(_description(source, row, options))
    for backend in progress_bar(backends, desc="packing ONNX Runtime Web", unit=" builds"):
        for part, name in zip(("library", "loader", "wasm"), BACKEND_FILES[backend], strict=True):
            assets[f"{backend}-{part}"] = _compressed(files[name])
    folder = out.with_name(f"{out.stem}_files") if options.beside else None
    page = page_text(described, assets, options, sources[0].name.removesuffix(f"-{sources[0].direction}"))
    out.parent.mkdir(parents=True, exist_ok=True)
    if folder is not None:
        folder.mkdir(exist_ok=True)
        for name, content in assets.items():
            write_atomically(folder / f"{name}.bin", content)
    write_atomically(out, page)
    return WrittenPage(out, len(page), folder, sum(map(len, assets.values())) if folder else 0, tuple(rows))


def check_page_path(out: Path) -> None:
    """Raise UserError for a path that no page can have."""
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out must end in .html, got {out}")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give a file in it, such as {out / 'page.html'}")


def _check_pixels(sources: "Sequence[GeneratorSource]") -> None:
    for source in sources:
        if any(kind.dtype != "uint8" or kind.channels not in (1, 3) for kind in source.ends):
            raise UserError(
                f"{source.checkpoint} translates {source.ends}, and a page only 8-bit RGB and grey images: export it "
                "with python export/to_onnx.py"
            )


def _packed(source: "GeneratorSource", stored: StoredWeights) -> tuple[bytes, PageRow]:
    from export.browser.weights import pack
    from export.parity import BARS
    from export.pictures import photographs_as
    from export.to_onnx import float32_graph
    from export.verify import onnx_parity

    content, computed = pack(source, float32_graph(source.network), stored)
    compressed = _compressed(content)
    pictures = photographs_as(source.ends.source)
    parity = onnx_parity(source.network, computed, source.size, pictures, f"the page's {source.name}", source.ends)
    failure = BARS[stored].failure(parity["worst"])
    return compressed, PageRow(source.name, _key(source), len(compressed), parity, failure)


def _key(source: "GeneratorSource") -> str:
    return source.direction.replace(" ", "-")


def _compressed(content: bytes) -> bytes:
    return gzip.compress(content, _COMPRESSION, mtime=0)


def _description(source: "GeneratorSource", row: PageRow, options: PageOptions) -> dict[str, Any]:
    """Return what the page's script knows of a direction."""
    network = source.network
    labels = [options.label_a, options.label_b]
    if source.direction == "b2a":
        labels.reverse()
    if source.direction == ONE_WAY and labels == ["A", "B"]:
        labels = ["picture", "translation"]  # nothing says which domains these are
    return {
        "direction": row.direction,
        "name": source.name,
        "from": labels[0],
        "to": labels[1],
        "size": source.size,
        "width": network.stem.out_channels,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "source_channels": source.ends.source.channels,
        "target_channels": source.ends.target.channels,
        "parity_db": round(min(row.parity["worst"].psnr_db, 120.0), 1),
        "checkpoint": source.sha256,
    }


def page_text(
    described: Sequence[Mapping[str, Any]], assets: Mapping[str, bytes], options: PageOptions, name: str
) -> bytes:
    """Return the page: its settings, styles and scripts, and unless `beside` the assets in base64."""
    settings = {
        "directions": described,
        "weights": options.weights,
        "multiple": SIDE_MULTIPLE,
        "beside": options.beside,
        "assets": {asset: len(content) for asset, content in assets.items()},
        "version": __version__,
        "runtime": ORT_WEB_VERSION,
        "example": _example(),
    }
    inside = (
        ""
        if options.beside
        else "\n".join(
            f'<script type="application/octet-stream" id="asset-{asset}">{base64.b64encode(content).decode()}</script>'
            for asset, content in assets.items()
        )
    )
    parts = {
        "title": html.escape(options.title or name),
        # A page of one file may load nothing but itself; one beside its files nothing but those.
        "connect": "blob: data: 'self'" if options.beside else "blob: data:",
        "settings": json.dumps(settings).replace("<", "\\u003c"),
        "assets": inside,
        "style": _source("page.css"),
        **{name: _source(f"{file}.js") for name, file in _SCRIPTS.items()},
    }
    return re.sub(r"{{(\w+)}}", lambda found: parts[found[1]], _source("page.html")).encode()


_SCRIPTS = {name: name for name in ("engine", "pictures", "resampling", "worker")} | {"script": "page"}


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _example() -> str:
    """Return a photograph, one of those that no training sees, as a data address of a JPEG."""
    from export.pictures import photographs

    file = io.BytesIO()
    Image.fromarray(photographs(1, _EXAMPLE_SIDE, _EXAMPLE_SIDE)[0]).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
