"""Shows samples of any type to people: as 8-bit RGB, with a line that says what its colours stand for.

Networks and scores never see these pictures. Importing this needs no PyTorch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cyclegan_fast.conventions import Direction
from cyclegan_fast.images.levels import check_range, to_levels
from cyclegan_fast.images.pixel_type import RGB, DomainName, PixelType, PixelTypes, SampleArray
from cyclegan_fast.images.pixels import Pixels

Colouring = Literal["grey", "cubehelix", "hot", "blue-red"]
"""Names how one band is coloured from low to high values.

"cubehelix" (Green 2011) runs from black to white through colours whose brightness rises evenly, also in print; "hot"
from black through red and yellow to white; "blue-red" from blue through white to red, for values around a middle.
"""
NOT_A_NUMBER = (255, 0, 255)
"""The colour of pixels without a value, NaN: magenta."""

_ENDS = {
    "grey": ("black", "white"),
    "cubehelix": ("black", "white"),
    "hot": ("black", "white"),
    "blue-red": ("blue", "red"),
}
_PRIMARIES = {2: ("red", "cyan"), 3: ("red", "green", "blue")}
"""Says what bands are shown as, by their number. Red and cyan are told apart by people who see few colours, too."""


@dataclass(frozen=True)
class Display:
    """Says how samples are made visible; the default suits most.

    bands: the channels to show, counted from 1: one in grey or false colour, two in red and cyan, three in red, green
        and blue. By default all, or the first three.
    window: the two values, in the images' units, that become the darkest and the brightest. By default their range.
    colours: the colours of a single band.

    Raises ValueError for what makes no sense, whatever the images are.
    """

    bands: tuple[int, ...] = ()
    window: tuple[float, ...] = ()
    colours: Colouring = "grey"

    def __post_init__(self) -> None:
        if len(self.bands) > 3 or any(band < 1 for band in self.bands):
            raise ValueError(f"bands are up to 3 channels, counted from 1, got {' '.join(map(str, self.bands))}")
        check_range(self.window, "window")
        if self.colours != "grey" and len(self.bands) > 1:
            raise ValueError(f"colours {self.colours} is of a single band, got {len(self.bands)} bands")

    def bands_of(self, kind: PixelType) -> tuple[int, ...]:
        """Return the channels of pixels that are shown, counted from 1.

        Raises ValueError where the pixels have no such channel, or too many for the colours.
        """
        bands = self.bands or tuple(range(1, min(kind.channels, 3) + 1))
        if max(bands) > kind.channels:
            raise ValueError(f"there is no band {max(bands)} in images of {kind}")
        if self.colours != "grey" and len(bands) > 1:
            raise ValueError(f"colours {self.colours} is of a single band: choose one of the bands of {kind}")
        return bands

    def window_of(self, kind: PixelType) -> tuple[float, float]:
        """Return the two values of pixels that become the darkest and the brightest."""
        return (self.window[0], self.window[1]) if self.window else (kind.low, kind.high)


DEFAULT_DISPLAY = Display()


def shown(samples: SampleArray, kind: PixelType, display: Display = DEFAULT_DISPLAY) -> Pixels:
    """Return samples [..., H, W, C] as 8-bit RGB [..., H, W, 3] for people; 8-bit RGB stays as it is by default.

    Values beyond the window get the colours of its ends, and pixels without a value are magenta. Raises ValueError
    where the samples do not have the bands of `display`.
    """
    if kind.is_rgb and display == DEFAULT_DISPLAY:
        return samples
    chosen = samples[..., [band - 1 for band in display.bands_of(kind)]]
    missing = np.isnan(chosen) if chosen.dtype.kind == "f" else None
    filled = chosen if missing is None else np.where(missing, np.float32(kind.low), chosen)
    values = to_levels(filled, display.window_of(kind))
    if values.shape[-1] == 1:
        picture = COLOUR_TABLES[display.colours][values[..., 0]]
    else:
        picture = values if values.shape[-1] == 3 else values[..., [0, 1, 1]]
    if missing is not None:
        picture[missing.any(-1)] = NOT_A_NUMBER
    return picture


def legend(kind: PixelType, display: Display = DEFAULT_DISPLAY, *, missing: bool = True) -> str:
    """Return a line that says what `shown` shows, such as "1 channel, uint16, 0 (black) to 4095 (white)".

    `missing` tells whether pixels without a value may be among them, where the type has such values. Raises ValueError
    where `kind` does not have the bands of `display`.
    """
    if kind.is_rgb and display == DEFAULT_DISPLAY:
        return str(kind)
    bands, (low, high) = display.bands_of(kind), display.window_of(kind)
    count = "1 channel" if kind.channels == 1 else f"{kind.channels} channels"
    parts = [count, kind.dtype]
    if len(bands) == 1:
        first, last = _ENDS[display.colours]
        parts += [f"band {bands[0]}"] if kind.channels > 1 else []
        parts += [f"{low:g} ({first}) to {high:g} ({last})"]
        parts += [display.colours] if display.colours != "grey" else []
    else:
        colours = _PRIMARIES[len(bands)]
        parts += [f"bands {_listed(bands)} as {_listed(colours)}", f"{low:g} (dark) to {high:g} (bright)"]
    return ", ".join(parts + (["NaN magenta"] if missing and kind.dtype == "float32" else []))


@dataclass(frozen=True)
class DomainView:
    """Shows the images of one domain: it knows what their samples are, and how these are made visible.

    Raises ValueError where the samples do not have the bands of `display`.
    """

    kind: PixelType = RGB
    display: Display = DEFAULT_DISPLAY

    def __post_init__(self) -> None:
        self.display.bands_of(self.kind)

    def __call__(self, samples: SampleArray) -> Pixels:
        """Return samples [..., H, W, C] as 8-bit RGB, see `shown`."""
        return shown(samples, self.kind, self.display)


class LegendLine(NamedTuple):
    """Holds a line of a legend: what it says, and the colours [256, 3] from the window's low to its high end.

    There are no such colours where they are greys, or are mixed of several bands.
    """

    text: str
    bar: Pixels | None = None


class DomainViews(NamedTuple):
    """Holds the views of both domains."""

    A: DomainView = DomainView()
    B: DomainView = DomainView()

    def of(self, domain: DomainName) -> DomainView:
        """Return the view of a domain."""
        return self.A if domain == "A" else self.B

    def of_direction(self, direction: Direction) -> tuple[DomainView, DomainView]:
        """Return the views of what a translation takes and of what it gives."""
        return (self.A, self.B) if direction == "a2b" else (self.B, self.A)

    @property
    def kinds(self) -> PixelTypes:
        """Return the types of the pixels of both domains."""
        return PixelTypes(self.A.kind, self.B.kind)

    def legend(self) -> tuple[LegendLine, ...]:
        """Return a line for each domain that says what its pictures show; none where both are 8-bit RGB as it is.

        Training and evaluation see no pixels without a value: something stands there.
        """
        if self == AS_RGB:
            return ()
        return tuple(
            LegendLine(
                f"{domain}: {legend(view.kind, view.display, missing=False)}",
                COLOUR_TABLES[view.display.colours] if view.display.colours != "grey" else None,
            )
            for domain, view in zip("AB", self, strict=True)
        )


AS_RGB = DomainViews()


def _listed(items: tuple[object, ...]) -> str:
    *others, last = map(str, items)
    return f"{', '.join(others)} and {last}"


# --- the tables of colours ------------------------------------------------------------------------------------------


def _table_of(colours_of: Callable[[npt.NDArray[np.float64]], list[npt.NDArray[np.float64]]]) -> Pixels:
    """Return the table [256, 3] of a function of the share in [0, 1] of the window to three colours in [0, 1]."""
    colours = np.stack(colours_of(np.linspace(0.0, 1.0, 256)), axis=-1)
    table: Pixels = np.rint(colours.clip(0.0, 1.0) * 255).astype(np.uint8)
    return table


def _cubehelix(share: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """Compute the default scheme of Green 2011, "A colour scheme for the display of astronomical intensity images".

    This is his equation 2 with start 0.5, -1.5 rotations, hue 1 and gamma 1.
    """
    angle = 2 * np.pi * (0.5 / 3 + 1 - 1.5 * share)
    amplitude = share * (1 - share) / 2
    return [
        share + amplitude * (of_cosine * np.cos(angle) + of_sine * np.sin(angle))
        for of_cosine, of_sine in ((-0.14861, 1.78277), (-0.29227, -0.90649), (1.97294, 0.0))
    ]


COLOUR_TABLES: dict[Colouring, Pixels] = {
    "grey": _table_of(lambda share: [share, share, share]),
    "cubehelix": _table_of(_cubehelix),
    "hot": _table_of(lambda share: [share * 3, share * 3 - 1, share * 3 - 2]),
    "blue-red": _table_of(lambda share: [share * 2, 1 - np.abs(share * 2 - 1), 2 - share * 2]),
}
"""The colours [256, 3] of the 256 levels of a single band."""
