"""Finds networks inside files of weights, behind prefixes that PyTorch's wrappers add, and in nested dictionaries.

DataParallel and DistributedDataParallel write `module.` in front of every key, torch.compile `_orig_mod.`, trainers the
attribute that a network is kept in (`netG_A2B.`); files have networks under `state_dict`, `model`, `params_ema` and the
like, beside optimisers and numbers. All of that is taken off, in whatever order it stands.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from cyclegan_fast.conventions import Direction
from cyclegan_fast.system.errors import UserError

WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names that PyTorch and Lightning give a network inside a wrapper of theirs."""

NETWORK = re.compile(
    r"model\.\d+\.|model\.model\.1\.model\.|net\.\d+\.|"  # the original's; its U-Nets alone have the second
    r"(stem|head)\.(weight|bias)$|(down|up|layers)\.\d+\.(weight|bias)$"  # ours
)
"""Matches the beginning of a network's key."""

_DIRECTION_ENDINGS: dict[Direction, re.Pattern[str]] = {
    "a2b": re.compile(r"(a2b|atob|ab|x2y|xtoy|xy|g(en(erator)?)?a)$"),
    "b2a": re.compile(r"(b2a|btoa|ba|y2x|ytox|yx|g(en(erator)?)?b)$"),
}
"""Match the ends of generators' names that say what they translate, in lower case and without punctuation."""

AVERAGE = re.compile(r"(^|[^a-z])(ema|averaged?|shadow)([^a-z]|$)", re.IGNORECASE)
"""Matches names of moving averages."""


def networks_in(content: Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Return the networks of a file, unwrapped, by the names that lead to them, such as "G_A2B" or "state_dict.netG".

    Values that stand beside a network's tensors and are none of them, such as an epoch, are left out; a tensor of
    several elements is not.
    """
    return {".".join(path): state for path, state in _networks(content, ())}


def _networks(content: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    # A tensor that belongs to a network's module has a dot in its key.
    flat = {key: value for key, value in content.items() if "." in str(key) and isinstance(value, Tensor)}
    flat = _without_wrappers(flat)
    if any(NETWORK.match(key) for key in flat):
        # One of several elements is no count of steps or the like: as part of the network, it is refused by name.
        strange = {str(key): value for key, value in content.items() if isinstance(value, Tensor) and value.numel() > 1}
        yield path, {**{key: value for key, value in strange.items() if "." not in key}, **flat}
    else:
        inside: dict[str, dict[str, Any]] = {}
        for key, value in flat.items():
            first, _, rest = key.partition(".")
            inside.setdefault(first, {})[rest] = value
        for first, state in inside.items():
            yield from _networks(state, (*path, first))
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _networks(value, path if key in WRAPPERS else (*path, str(key)))


def _without_wrappers(state: dict[Any, Any]) -> dict[str, Any]:
    """Return the state dict without the wrappers' parts of its keys, wherever they stand in them."""
    plain = {key: ".".join(part for part in str(key).split(".") if part not in WRAPPERS) for key in state}
    if len({*plain.values()}) < len(plain):  # the same network with and without a wrapper
        return {str(key): value for key, value in state.items()}
    return {plain[key]: value for key, value in state.items()}


def chosen(names: list[str], direction: Direction, asked: str | None, origin: str, notes: list[str]) -> str:
    """Return the name of the network to translate with in a direction, of the generators that a file holds.

    It is the one whose name was asked for; or else the only one; or else the one whose name says the direction, and of
    two such the moving average, which a note says. Raises UserError naming them all where that leaves more or fewer
    than one.
    """
    if asked is not None:
        fitting = [name for name in names if asked in (name, *name.split("."))]
        if len(fitting) == 1:
            return fitting[0]
        raise UserError(f"{origin} holds no one generator {asked}: --network names one of {', '.join(names)}")
    if len(names) == 1:
        return names[0]
    fitting = [name for name in names if direction_of(name) in (direction, None)]
    saying = [name for name in fitting if direction_of(name) == direction] or fitting
    averages = [name for name in saying if AVERAGE.search(name)]
    best = averages or saying
    if len(best) != 1:
        raise UserError(f"{origin} holds several generators ({', '.join(names)}): say which with --network NAME")
    note = f"{origin} holds several generators: {best[0]} is used for {direction}, another one with --network NAME"
    if note not in notes:
        notes.append(note)
    return best[0]


def direction_of(name: str) -> Direction | None:
    """Return the direction in which a network translates, where its name says so."""
    for part in reversed(name.split(".")):
        plain = re.sub(r"[^a-z0-9]", "", AVERAGE.sub("", part).lower())
        for direction, pattern in _DIRECTION_ENDINGS.items():
            if pattern.search(plain):
                return direction
    return None
