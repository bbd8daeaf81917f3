"""Lets a new run begin with trained weights (--init-from): of a run, of the original implementation, or bare ones.

All networks that are found are taken, with their moving averages; optimisers, pools and schedule begin anew. What the
networks must look like comes from the weights too, unless flags say otherwise: `settings_to_begin_with`, before the
configuration is complete. A run that goes on needs neither: its checkpoint and its config.yaml have both.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cyclegan_fast.checkpoint.files import load_weights
from cyclegan_fast.checkpoint.named_networks import named_networks
from cyclegan_fast.checkpoint.original import StateDict, channels_by_shapes, count, is_unet, norm_of, upsampling_of
from cyclegan_fast.checkpoint.weights_file import WeightsFile
from cyclegan_fast.config.options import Config, NetworkConfig
from cyclegan_fast.config.values import load_config, to_dict
from cyclegan_fast.images.pixel_type import DomainName, PixelTypes
from cyclegan_fast.methods.model import Model
from cyclegan_fast.methods.saved_networks import check_own_networks
from cyclegan_fast.runs import CONFIG
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted
from cyclegan_fast.training.run_folder import completed
from cyclegan_fast.translation.trained import types_of_run

_OF_GENERATORS = ("generator", "ngf", "norm", "upsampling")
_OF_DISCRIMINATORS = ("discriminator", "n_layers", "ndf", "discriminator_norm")
_SETTINGS = (*_OF_GENERATORS, *_OF_DISCRIMINATORS, "dropout")
"""The settings that a new run takes over; all but dropout show in the shapes of weights."""


@dataclass(frozen=True)
class InitialWeights:
    """Holds networks to begin with.

    networks: state dicts in our keys by the names of networks, "G_A_ema" for a moving average.
    settings: the values of NetworkConfig's fields that made them, as far as they are known.
    channels: those of the images of A and of B.
    method: the name of the method that trained them; None for bare weights.
    step: the number of steps that a run had taken; None for bare weights.
    notes: lines for the user.
    kinds: the types of pixels of the images that they were trained on; None for bare weights.
    """

    origin: Path
    networks: dict[str, StateDict]
    settings: dict[str, Any]
    channels: tuple[int, int]
    method: str | None
    step: int | None
    notes: list[str]
    kinds: PixelTypes | None = None

    @classmethod
    def read(cls, path: Path) -> "InitialWeights":
        """Read the weights that a user named, see `find_weights`; raises UserError where there is no generator."""
        notes: list[str] = []
        weights = WeightsFile.read(path, notes, check_own_networks)
        networks = named_networks(weights, notes)
        if not weights.is_run:
            return cls(path, networks, _settings_of(networks, path), _channels_in(networks, path), None, None, notes)
        saved = weights.content["config"].get("networks", {})
        settings = {name: saved[name] for name in _SETTINGS if name in saved}
        step = weights.content.get("log", {}).get("step")
        kinds = PixelTypes(*types_of_run(weights.content["config"], "a2b", str(path)))
        channels = kinds.A.channels, kinds.B.channels
        return cls(path, networks, settings, channels, weights.method_name, step, notes, kinds)

    @classmethod
    def shared(cls, path: Path, ranks: Ranks) -> "InitialWeights":
        """Read the weights once, on the first rank, for all."""
        return ranks.from_first(lambda: cls.read(path))


def settings_to_begin_with(config: Config, origin: str) -> dict[str, Any]:
    """Return settings of `config.networks` that a run takes over, where `config.networks.init_from` is given.

    They are those of the weights; or the run's own, where it was begun already and the weights may be gone.

    Args:
        config: says which run it is, and which weights.
        origin: see `completed`.

    Raises UserError for what are no weights, and for networks that the settings have no name for.
    """
    config = completed(config, origin)
    assert config.run.name is not None
    assert config.networks.init_from is not None
    begun = config.run.runs / config.run.name / CONFIG
    if begun.exists():
        saved = to_dict(load_config(begun))["networks"]
        return {name: saved[name] for name in _SETTINGS}
    return InitialWeights.read(config.networks.init_from).settings


def begin_with(found: InitialWeights, model: Model, config: Config) -> tuple[list[str], str]:
    """Load the weights into a new model; returns the names of the networks that got them, and what to tell the user.

    A moving average that the source has not begins as the generator itself. Raises UserError, and changes nothing,
    where the source has networks of other settings.
    """
    _check(found, config)
    kept = {name: network for name, network in model.named_children() if name in found.networks}
    for name in [name for name in kept if name.startswith("D") and found.method not in (None, config.loss.method)]:
        if not _fits(kept[name].state_dict(), found.networks[name]):
            del kept[name]  # it judged something else, such as images beside one another
    for name, network in kept.items():
        load_weights(network, found.networks[name], f"{name} of {found.origin}")
    for name in model.method.generators:
        average = getattr(model, f"{name}_ema", None)
        if average is not None and f"{name}_ema" not in kept and name in kept:
            average.load_state_dict(kept[name].state_dict())
    description = _description(found, model, [*kept])
    return [*kept], "; ".join([description, *_other_pixels(found, config)])


def _description(found: InitialWeights, model: Model, kept: list[str]) -> str:
    step = "" if found.step is None else f" (step {found.step})"
    plain = _plain(found.settings)
    if plain.get("discriminator") != "n_layers":
        plain.pop("n_layers", None)
    if plain.get("discriminator_norm") == plain.get("norm"):
        plain.pop("discriminator_norm", None)
    for name in ("dropout", "upsampling"):
        if plain.get(name) == getattr(NetworkConfig, name):
            plain.pop(name)
    settings = ", ".join(f"{name} {plain[name]}" for name in _SETTINGS if name in plain)
    new = [name for name, _ in model.named_children() if name not in kept and not name.endswith("_ema")]
    unused = [name for name in found.networks if name not in kept]
    lines = [f"begins with {', '.join(kept)} of {found.origin}{step}: {settings}"]
    lines += [f"new, as they are not there or judged something else: {', '.join(new)}"] if new else []
    lines += [f"left out: {', '.join(unused)}"] if unused else []
    if any(name.endswith("_ema") for name in unused):
        lines[-1] += " (--ema DECAY goes on with moving averages)"
    return "; ".join([*lines, *found.notes])


def _other_pixels(found: InitialWeights, config: Config) -> list[str]:
    """Say where -1 and 1 stood for other values in the images that the networks know."""
    if found.kinds is None:
        return []
    lines = []
    for name in get_args(DomainName):
        known, kind = found.kinds.of(name), config.data.pixel_type(name)
        if known != kind:
            line = f"its images of {name} were of {known}, these are of {kind}"
            if known.dtype == kind.dtype:
                line += f": --range-{name.lower()} {known.low:g} {known.high:g} keeps that range"
            lines.append(line)
    return lines


def _check(found: InitialWeights, config: Config) -> None:
    """Raise UserError where the source's networks are made by other settings, naming the flags that mend it."""
    of_cogan = [method for method in (found.method, config.loss.method) if method == "cogan"]
    if len(of_cogan) == 1:
        raise UserError(
            f"--init-from {found.origin} has networks of method {found.method or 'cyclegan'}, and those of "
            f"{config.loss.method} are others: CoGAN's networks are its own"
        )
    if found.channels != config.channels:
        there, here = (
            f"{counted(of_A, 'channel')} in A and {of_B} in B" for of_A, of_B in (found.channels, config.channels)
        )
        raise UserError(
            f"--init-from {found.origin} has networks for images of {there}, and those to train on have {here}: "
            f"give other weights, or --channels-a {found.channels[0]} --channels-b {found.channels[1]}"
        )
    judges = any(name.startswith("D") for name in found.networks) and found.method in (None, config.loss.method)
    names = ("ngf", "ndf") if of_cogan else (*_OF_GENERATORS, *(_OF_DISCRIMINATORS if judges else ()))
    theirs, asked = _plain(found.settings), _plain(to_dict(config)["networks"])
    differing = [name for name in names if name in theirs and theirs[name] != asked[name]]
    if differing:
        said = ", ".join(f"{name} {theirs[name]} and not {asked[name]}" for name in differing)
        flags = " ".join(f"--{name.replace('_', '-')} {theirs[name]}" for name in differing)
        raise UserError(f"--init-from {found.origin} has networks with {said}: leave these flags out, or give {flags}")


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings with one name for one network.

    The usual PatchGAN is one of three layers, and discriminators without a norm of their own have that of generators.
    """
    is_usual = settings.get("discriminator") == "n_layers" and settings.get("n_layers") == NetworkConfig.n_layers
    plain = settings | ({"discriminator": "patch"} if is_usual else {})
    if "discriminator_norm" in plain:
        plain["discriminator_norm"] = plain["discriminator_norm"] or plain["norm"]
    return plain


def _fits(one: StateDict, other: StateDict) -> bool:
    return {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in other.items()}


def _settings_of(networks: dict[str, StateDict], origin: Path) -> dict[str, Any]:
    """Return the settings that make networks like these bare ones; raises UserError where none do."""
    generator = next(state for name, state in networks.items() if name.startswith("G"))
    settings: dict[str, Any] = {"norm": norm_of(generator)}
    if is_unet(generator):
        settings |= {
            "generator": f"unet_{2 ** count(generator, 'down')}",
            "ngf": _width(generator, "down.0.weight", origin),
        }
    else:
        settings |= {
            "generator": f"resnet_{count(generator, 'blocks')}",
            "ngf": _width(generator, "stem.weight", origin),
            "upsampling": upsampling_of(generator),
        }
    for state in [state for name, state in networks.items() if name.startswith("D")][:1]:
        is_pixel = state["layers.0.weight"].shape[2:] == (1, 1)
        n_layers = NetworkConfig.n_layers if is_pixel else count(state, "layers") - 2
        is_usual = n_layers == NetworkConfig.n_layers
        settings["discriminator"] = "pixel" if is_pixel else "patch" if is_usual else "n_layers"
        settings |= {"n_layers": n_layers, "ndf": _width(state, "layers.0.weight", origin)}
    try:
        NetworkConfig(**settings)
    except ValueError as error:
        raise UserError(f"--init-from {origin}: {error}") from error
    return settings


def _channels_in(networks: dict[str, StateDict], origin: Path) -> tuple[int, int]:
    """Return the channels of the images of A and of B that bare networks translate."""
    name = next(name for name in networks if name.startswith("G"))
    try:
        inputs, outputs = channels_by_shapes(networks[name])
    except (KeyError, IndexError) as error:
        raise UserError(f"{origin} holds no network that can be trained on: no first or last convolution") from error
    return (inputs, outputs) if name.startswith("G_A") else (outputs, inputs)


def _width(state: StateDict, first: str, origin: Path) -> int:
    """Return the channels of a network's first convolution."""
    if first not in state or state[first].dim() != 4:
        raise UserError(f"{origin} holds no network that can be trained on: no {first} of a convolution")
    return state[first].size(0)
