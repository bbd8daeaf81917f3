"""Finds all networks of a file of weights by the names that a run has for them: "G_A", "G_A_ema", "D_A" and so on.

Files of the original hold one network each: those of the same epoch stand beside one another in a folder.
"""

import re
from pathlib import Path

from cyclegan_fast.checkpoint.files import load
from cyclegan_fast.checkpoint.original import StateDict, from_original, is_discriminator, is_original
from cyclegan_fast.checkpoint.weights_file import WeightsFile
from cyclegan_fast.checkpoint.wrapped_weights import AVERAGE, direction_of, networks_in
from cyclegan_fast.conventions import GENERATOR_OF
from cyclegan_fast.system.errors import UserError

_OF_ORIGINAL = re.compile(r"(?P<before>.*net_)(?P<kind>[GD])(?P<domain>_[AB])?")
"""Matches the name, without its ending, of a file that the original's trainings write: latest_net_G_A, 100_net_D."""

_DISCRIMINATOR = re.compile(r"(?:net_?)?D_([AB])")
"""Matches the last part of a discriminator's name where it is the original's, whose D_A judges B."""


def named_networks(weights: WeightsFile, notes: list[str]) -> dict[str, StateDict]:
    """Return the state dicts, in our keys, of all networks that can be told by their names.

    Args:
        weights: a run's checkpoint, bare weights of one network or several, or one of the original's files, whose
            siblings in the same folder are read too.
        notes: lines for the user on what was taken for what, or left out, are appended.

    Raises UserError where there is no generator, or where it cannot be told which one is meant.
    """
    if weights.is_run:
        return weights.networks_of_run()
    of_original = _OF_ORIGINAL.fullmatch(weights.file.stem)
    if of_original and _only_network(weights.content):
        found = _siblings(weights.file, of_original)
    else:
        found = _inside(weights, notes)
    if not any(name.startswith("G") for name in found):
        raise UserError(f"{weights.given} holds no generator: give a run, or a file such as latest_net_G_A.pth")
    return found


def _siblings(file: Path, name: re.Match[str]) -> dict[str, StateDict]:
    """Return the networks of a file of the original and of those beside it; the one pair of a pix2pix maps A to B."""
    domains = ("_A", "_B") if name["domain"] else ("",)
    found = {}
    for kind in "GD":
        for domain in domains:
            sibling = file.with_name(f"{name['before']}{kind}{domain}{file.suffix}")
            state = _only_network(load(sibling)) if sibling.exists() else None
            if state is not None:
                found[f"{kind}{domain or '_A'}"] = _in_our_keys(state, str(sibling))
    return found


def _inside(weights: WeightsFile, notes: list[str]) -> dict[str, StateDict]:
    """Return the networks of a file, generators by the directions that their names say."""
    found: dict[str, tuple[str, StateDict]] = {}
    for name, state in networks_in(weights.content).items():
        ours = _our_name(name, state, weights.file)
        if ours is None:
            notes.append(f"{name} of {weights.given} is left out: its name does not say what it judges")
        elif ours in found:
            raise UserError(
                f"{weights.given} holds several networks for {ours} ({found[ours][0]}, {name}): give a file with one"
            )
        else:
            found[ours] = name, state
    generators = [name or weights.file.stem for ours, (name, _) in found.items() if ours.startswith("G")]
    if len(generators) == 1 and direction_of(generators[0]) is None:
        notes.append(f"the one generator of {weights.given} is taken for G_A, which maps A to B")
    return {ours: _in_our_keys(state, f"{weights.given}: {name or ours}") for ours, (name, state) in found.items()}


def _our_name(name: str, state: StateDict, file: Path) -> str | None:
    """Return our name of a network in a file; None for a discriminator of which it is not known what it judges."""
    if is_discriminator(state):
        of_domain = _DISCRIMINATOR.fullmatch(name.rpartition(".")[2])
        return f"D_{of_domain[1]}" if of_domain else None
    generator = GENERATOR_OF[direction_of(name or file.stem) or "a2b"]
    return f"{generator}_ema" if AVERAGE.search(name) else generator


def _only_network(content: StateDict) -> StateDict | None:
    """Return the network of a file that holds one and no more."""
    inside = [*networks_in(content).values()]
    return inside[0] if len(inside) == 1 else None


def _in_our_keys(state: StateDict, origin: str) -> StateDict:
    if not is_original(state):
        return state
    try:
        return from_original(state)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
