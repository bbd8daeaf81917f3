"""Checks that the networks of a checkpoint are those of a configuration: weights, moments of Adam, pools, losses."""

from functools import lru_cache

import torch
from torch import nn

from cyclegan_fast.checkpoint.consistency import is_of_this_version
from cyclegan_fast.checkpoint.content import DescentState, LossState, RunCheckpoint
from cyclegan_fast.checkpoint.description import WrongEntry
from cyclegan_fast.checkpoint.files import check_fits
from cyclegan_fast.config.options import Config
from cyclegan_fast.config.values import from_dict
from cyclegan_fast.methods.model import Model
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.words import counted


def check_own_networks(saved: RunCheckpoint) -> None:
    """Raise WrongEntry where a checkpoint has other networks than its own configuration says.

    Checkpoints of other versions may have settings that do not exist here: they are not looked at.
    """
    if is_of_this_version(saved):
        check_networks(saved, from_dict(saved["config"], "config"))


def check_networks(saved: RunCheckpoint, config: Config) -> None:
    """Raise WrongEntry where a checkpoint, right by itself, has other networks or losses than a configuration."""
    model = _sketch(config)
    try:
        check_fits(model, saved["model"], "it")
    except UserError as error:
        raise WrongEntry("model", f"is of other networks: {error}") from error
    method = model.method
    generators, discriminators = saved["step"]["generators"], saved["step"]["discriminators"]
    _check_moments(generators, model.trainable(method.generators), "step.generators")
    _check_moments(discriminators, model.trainable(method.discriminators), "step.discriminators")
    watched = [name for name in method.losses if name not in method.judged]
    _check_names(saved["log"]["losses"], list(method.losses), "log.losses")
    for index, rank in enumerate(saved["ranks"]):
        for pool, channels in zip(("pool_A", "pool_B"), method.shown_channels, strict=True):
            for image in rank["step"][pool]["images"]:  # type: ignore[literal-required]  # both names are keys
                if len(image) != channels:
                    place = f"ranks[{index}].step.{pool}"
                    raise WrongEntry(place, f"has images of {counted(len(image), 'channel')} instead of {channels}")
        if schedule := rank.get("schedule"):
            _check_names(schedule["losses"], watched, f"ranks[{index}].schedule.losses")


@lru_cache(maxsize=2)
def _sketch(config: Config) -> Model:
    """Return a model without memory: of its weights there are names and shapes."""
    with torch.device("meta"):
        return Model(config)


def _check_moments(state: DescentState, weights: list[nn.Parameter], place: str) -> None:
    """Check that an optimiser has moments of each weight, in their order, or of none: before its first update."""
    optimizer = state["optimizer"]
    count = len(optimizer["param_groups"][0]["params"])
    if count != len(weights):
        raise WrongEntry(f"{place}.optimizer.param_groups[0].params", f"are {count} weights instead of {len(weights)}")
    for number, moments in optimizer["state"].items():
        shapes = moments["exp_avg"].shape, moments["exp_avg_sq"].shape
        expected = weights[number].shape
        if shapes != (expected, expected):
            raise WrongEntry(f"{place}.optimizer.state.{number}", f"has not the shape {list(expected)} of its weight")


def _check_names(losses: LossState | None, names: list[str], place: str) -> None:
    if losses and losses["names"] != names:
        raise WrongEntry(f"{place}.names", f"are not {', '.join(names)}")
