"""Fetches ONNX Runtime Web, one release of it, with npm, and keeps what a page needs of it in the user's cache.

Every file is held against a digest that stands here, wherever it comes from.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cyclegan_fast.system.errors import UserError, in_brief_words
from cyclegan_fast.system.files import write_atomically
from cyclegan_fast.system.progress import waiting

_PACKAGE, ORT_WEB_VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""what npm's registry states of the package's archive"""

PageBackend = Literal["wasm", "webgpu"]
BACKEND_FILES: dict[PageBackend, tuple[str, str, str]] = {
    "wasm": ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"),
    # Of three builds with WebGPU this is the smallest. It needs a browser with WebAssembly's promise integration; the
    # build for others ("asyncify") is 10 MB larger.
    "webgpu": ("ort.jspi.min.js", "ort-wasm-simd-threaded.jspi.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}
"""The library, what loads its WebAssembly, and that, by backend."""

_SHA256 = {
    "ort.wasm.min.js": "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.jspi.min.js": "e0f5c81dc6c6bc6d368288c76278783510dcd20d8ef6b39f1670928ce8ea80d9",
    "ort-wasm-simd-threaded.jspi.mjs": "270e2c6da9f297239d301d329782b6446641cb1e16a77967690adcfca35f3268",
    "ort-wasm-simd-threaded.jspi.wasm": "a54c76f86b0f0d9572380cf1c6292a7b3903716ffcbcd6b0e5c7050bf430eb93",
}
_TIMEOUT_S = 900
_RELEASE = f"{_PACKAGE}@{ORT_WEB_VERSION}"


def runtime_files(names: Sequence[str], folder: Path | None) -> dict[str, bytes]:
    """Return files of ONNX Runtime Web by their names.

    Args:
        names: of those in `BACKEND_FILES`.
        folder: where they lie, such as the folder `dist` of the unpacked package; None for the user's cache, which is
            filled with npm where they are not in it.

    Raises UserError where one is missing, is not of the release, or cannot be fetched.
    """
    if folder is not None:
        return {name: _of_folder(folder, name) for name in names}
    cache = _cache()
    found = {name: content for name in names if (content := _cached(cache / name)) is not None}
    if missing := [name for name in names if name not in found]:
        with waiting(f"fetching {_RELEASE} with npm"):
            fetched = _fetched(missing)
        cache.mkdir(parents=True, exist_ok=True)
        for name, content in fetched.items():
            write_atomically(cache / name, content)
        found |= fetched
    return found


def can_be_had(names: Sequence[str]) -> bool:
    """Tell whether files of `BACKEND_FILES` are in the user's cache, or npm is installed, which may fetch them."""
    return shutil.which("npm") is not None or all(_cached(_cache() / name) is not None for name in names)


def _cache() -> Path:
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    except RuntimeError as error:
        raise UserError(
            f"there is no home folder to keep {_RELEASE} in: set XDG_CACHE_HOME, or give its folder as --runtime"
        ) from error
    return caches / "cyclegan-fast" / f"{_PACKAGE}-{ORT_WEB_VERSION}"


def _cached(path: Path) -> bytes | None:
    """Return a file of the cache; None for one that is not there, or damaged, which is then fetched anew."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return content if _is_genuine(path.name, content) else None


def _is_genuine(name: str, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == _SHA256[name]


def _of_folder(folder: Path, name: str) -> bytes:
    path = folder / name if (folder / name).is_file() else folder / "dist" / name
    if not path.is_file():
        raise UserError(f"--runtime {folder} has no {name}: give the folder dist of the package {_RELEASE}, unpacked")
    content = path.read_bytes()
    if not _is_genuine(name, content):
        raise UserError(f"{path} is not that of {_RELEASE}, or is damaged: unpack that release anew")
    return content


def _fetched(names: Sequence[str]) -> dict[str, bytes]:
    """Fetch the package's archive with npm, and return files of it."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"npm is not installed, and pages need {_RELEASE}: install Node.js, or give the unpacked package's "
            "folder as --runtime"
        )
    advice = "see that npm reaches its registry, or give the unpacked package's folder as --runtime"
    with tempfile.TemporaryDirectory() as scratch:
        try:
            ended = subprocess.run(
                [npm, "pack", _RELEASE, "--pack-destination", scratch, "--ignore-scripts", "--loglevel", "error"],
                cwd=scratch,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"npm did not fetch {_RELEASE} within {_TIMEOUT_S} s: {advice}") from error
        archives = sorted(Path(scratch).glob("*.tgz"))
        if ended.returncode != 0 or not archives:
            said = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1][:300]
            raise UserError(f"npm could not fetch {_RELEASE} ({said}): {advice}")
        return unpacked(archives[0], names)


def unpacked(archive: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return files of the package's archive. Raises UserError where it is not the one that `INTEGRITY` describes."""
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        raise UserError(
            f"what npm gave for {_RELEASE} is not that package (sha512-{digest[:12]}..., not {INTEGRITY[:19]}...): "
            "look at npm's registry setting"
        )
    found = {}
    try:
        with tarfile.open(archive, "r:gz") as files:
            for name in names:
                member = files.extractfile(f"package/dist/{name}")
                assert member is not None
                found[name] = member.read()
    except (tarfile.TarError, KeyError, OSError) as error:
        raise UserError(f"{_RELEASE} cannot be unpacked ({in_brief_words(error)}): try again") from error
    return found
