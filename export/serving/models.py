"""Loads the exported files that are served, and finds the one that a request asks for."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclegan_fast.conventions import DIRECTIONS, SIDE_MULTIPLE, Direction, padded_side
from cyclegan_fast.images.pixels import images_at_once
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted, listed
from cyclegan_fast.translation.translator import Translator
from export.engines.engine_card import EngineCard, Profile
from export.graph_translator import GraphTranslator
from export.graphs.onnx_file import metadata_of
from export.onnx_translators import Backend, OnnxDevice, load_translator
from export.serving.refusal import RequestRefused

WARM_UP_SIDE = 256


@dataclass(frozen=True)
class ServedModel:
    """Holds a generator that is served.

    name: that of its file, without the ending.
    direction: what it translates into what; None where the file does not say.
    translator: translates batches; one thread at a time calls it.
    means: says in a phrase what computes it.
    profile: the shapes that an engine takes; None for an ONNX file, which takes any.
    close: frees what it holds.
    """

    name: str
    direction: Direction | None
    translator: Translator
    means: str
    profile: Profile | None = None
    close: Callable[[], None] = lambda: None

    def most_at_once(self, height: int, width: int, batch_size: int) -> int:
        """Return how many images of a size are translated at once, at most."""
        most = min(batch_size, images_at_once(height, width))
        return most if self.profile is None else min(most, self.profile.largest[0])

    def size_for(self, asked: int | None, height: int, width: int) -> tuple[int, int]:
        """Return height and width at which an image of height x width is translated.

        Raises RequestRefused where the generator does not take it.
        """
        profile = self.profile
        if asked is None and profile is not None and profile.takes_one_size:
            return profile.usual[1:]
        sides = (asked, asked) if asked is not None else (height, width)
        padded = padded_side(sides[0]), padded_side(sides[1])
        if profile is not None and not profile.takes((profile.smallest[0], *padded)):
            raise RequestRefused(
                422,
                f"{self.name} takes {profile}, and this would be {padded[1]}x{padded[0]}: give a size in that range",
            )
        return sides

    def warm_up(self) -> None:
        """Translate an image of the usual size. Raises UserError where that fails."""
        side = WARM_UP_SIDE
        height, width = (side, side) if self.profile is None else self.profile.usual[1:]
        source = self.translator.source
        self.translator(np.full((1, height, width, source.channels), source.low, source.as_numpy))

    def described(self) -> dict[str, object]:
        """Return the description that clients are given."""
        source, target = self.translator.source, self.translator.target
        sizes = f"any; sides are continued to multiples of {SIDE_MULTIPLE}"
        return {
            "name": self.name,
            "direction": self.direction,
            "takes": str(source),
            "gives": str(target),
            "sizes": str(self.profile) if self.profile else sizes,
            "computed_by": self.means,
        }


def load_models(
    paths: Sequence[Path], *, backend: Backend, device: OnnxDevice, amp: bool, threads: int | None, notes: list[str]
) -> list[ServedModel]:
    """Load ONNX files and engines to serve; the other arguments are those of `load_translator`, for ONNX files.

    Raises UserError where one cannot be used, and for two of one name.
    """
    names = [path.stem for path in paths]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two files are called {twice[0]}: rename one, as clients ask for a generator by that name")
    models: list[ServedModel] = []
    try:
        for path in paths:
            if path.suffix.lower() == ".engine":
                models.append(_engine(path))
                continue
            translator, means = load_translator(path, backend, device, amp=amp, threads=threads, notes=notes)
            models.append(ServedModel(path.stem, _direction_of_file(path), translator, means))
    except BaseException:
        for model in models:
            model.close()
        raise
    return models


def _engine(path: Path) -> ServedModel:
    from export.runtime import Engine

    one_size = EngineCard.beside(path).profile.takes_one_size
    engine = Engine(path, cuda_graph=one_size)
    card = engine.card
    return ServedModel(
        path.stem,
        _direction(card.direction),
        GraphTranslator(engine, card.uint8_io, card.ends),
        f"{card.library} {card.version} in {card.precision}",
        card.profile,
        engine.close,
    )


def _direction_of_file(path: Path) -> Direction | None:
    """Return the direction that the metadata of an ONNX file say, which was read before; None where they say none."""
    return _direction(metadata_of(path.read_bytes()).get("direction", ""))


def _direction(said: str) -> Direction | None:
    return next((direction for direction in DIRECTIONS if direction == said), None)


def model_asked_for(models: Sequence[ServedModel], name: str | None, direction: Direction | None) -> ServedModel:
    """Return the generator that a request asks for by name and direction.

    Raises RequestRefused, with what there is, where it is none or not one alone.
    """
    found = [model for model in models if name in (None, model.name) and direction in (None, model.direction)]
    if len(found) == 1:
        return found[0]
    there = listed([f"{model.name} ({model.direction or 'direction not known'})" for model in models])
    asked = " ".join(filter(None, [name and f"called {_shown(name)}", direction and f"of direction {direction}"]))
    if not found:
        raise RequestRefused(404, f"no generator {asked} is served: there is {there}")
    raise RequestRefused(422, f"{counted(len(found), 'generator')} could be meant: give model or direction, of {there}")


def _shown(name: str) -> str:
    """Return a name that a client sent, in few characters that are shown everywhere."""
    return re.sub(r"[^\w.@+-]", "?", name[:64], flags=re.ASCII)
