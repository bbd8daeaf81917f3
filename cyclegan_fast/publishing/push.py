"""Writes a release as a folder, and brings it to a hub."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cyclegan_fast.checkpoint.hub import HUB, HubRepository
from cyclegan_fast.checkpoint.published import write_published
from cyclegan_fast.publishing.model_card import model_card
from cyclegan_fast.publishing.release import LoadedFrom, Release
from cyclegan_fast.system.errors import UserError, printable

CARD = "README.md"


def save_release(origin: LoadedFrom, folder: Path, *, samples: bool = True) -> None:
    """Write into a new folder what `push_release` brings to a hub; `load` takes the folder as it does a run.

    Args:
        origin: what the weights were loaded from.
        samples: add the newest sample grids of the run, which show images of its data.

    Raises UserError where there is something in the folder, or the system refuses to write there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already: give a new folder")
    release = _release(origin, samples)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(release, folder, model_card(release, f"OWNER/{folder.resolve().name}"))
    except OSError as error:
        raise UserError(f"could not write {folder}: {error.strerror}") from error


def push_release(
    origin: LoadedFrom,
    repository: str,
    *,
    private: bool | None = None,
    branch: str | None = None,
    message: str = "Upload generators",
    token: str | None = None,
    samples: bool = True,
) -> str:
    """Bring the generators to a repository of a hub, and print which files; return the address of what was written.

    The arguments are those of `ImageTranslator.push_to_hub`.
    """
    release = _release(origin, samples)
    target = HubRepository(repository, private=private, branch=branch, token=token)
    with tempfile.TemporaryDirectory(prefix="cyclegan-fast-") as temporary:
        card = model_card(release, target.name.repository, target.read(CARD))
        files = _write(release, Path(temporary), card)
        print(printable(f"pushing to {HUB}{target.name}, which is {'private' if target.is_private else 'public'}:"))
        for file, path in files.items():
            print(f"  {file}  {_size(path.stat().st_size)}")
        return target.commit(files, message)


def _release(origin: LoadedFrom, samples: bool) -> Release:
    release = Release.of(origin)
    return release if samples else replace(release, samples={})


def _write(release: Release, folder: Path, card: str) -> Mapping[str, Path]:
    """Write everything into an empty folder; return the files by their names."""
    write_published(folder, release.generators, release.config)
    (folder / CARD).write_text(card, encoding="utf-8")
    for domain, picture in release.samples.items():
        shutil.copyfile(picture, folder / f"samples_{domain}.png")
    return {path.name: path for path in sorted(folder.iterdir())}


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
