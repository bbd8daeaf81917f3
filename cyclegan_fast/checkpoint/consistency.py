"""Checks that the entries of a checkpoint agree with one another: steps, schedule, weights, optimisers, pools.

Each entry by itself is what content.py says of it, see `check_content`; what the networks of a configuration look like
is known further up, in `methods/saved_networks.py`.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from cyclegan_fast.checkpoint.content import LossState, PoolState, RankState, RunCheckpoint
from cyclegan_fast.checkpoint.description import WrongEntry, check_entry
from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.config.values import from_dict
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.version import __version__

LAST_COUNTED_STEP = 2**24  # Adam counts its steps in float32, which stays there
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def check_content(content: Mapping[str, Any]) -> None:
    """Raise WrongEntry where the content of a checkpoint is not as described, or its entries contradict each other.

    Files of other versions may lack entries that came later, and the settings of their configuration that do not exist
    here are left alone.
    """
    is_own = is_of_this_version(content)
    check_entry(content, RunCheckpoint, complete=is_own)
    saved: RunCheckpoint = content  # type: ignore[assignment]  # which it is now
    config = _config_of(saved) if is_own else None
    _check_weights(saved)
    _check_optimisers(saved)
    _check_progress(saved, config)
    if config:
        _check_shares(saved, config)
    for index, rank in enumerate(saved["ranks"]):
        _check_rank(rank, f"ranks[{index}]", saved, config)


def is_of_this_version(content: Mapping[str, Any]) -> bool:
    """Tell whether this version wrote a checkpoint, so that it has every entry, and settings that exist."""
    return content.get("written_by") == __version__


def _config_of(saved: RunCheckpoint) -> Config:
    try:
        return from_dict(saved["config"], "")
    except UserError as error:
        raise WrongEntry("config", f"cannot be: {str(error).removeprefix(': ')}") from error


def _check_weights(saved: RunCheckpoint) -> None:
    """Check what the names of weights say of them."""
    for name, weight in saved["model"].items():
        counts = name.endswith("num_batches_tracked")
        is_right = counts != weight.is_floating_point() and (not counts or weight.dim() == 0)
        _require(is_right, f"model.{name}", f"is of {weight.dtype} and shape {list(weight.shape)}")
        if counts or name.endswith("running_var"):
            _require(bool((weight >= 0).all()), f"model.{name}", "is negative")
    networks = {name.partition(".")[0] for name in saved["model"]}
    for name in saved.get("begun_with", []):
        _require(name in networks, "begun_with", f"names {name}, which is no network of the model")


def _check_optimisers(saved: RunCheckpoint) -> None:
    """Check that optimisers and scalers are as many steps old as the run.

    Moments are there for every weight or, before the first update, for none: where nothing is judged, the
    discriminators have none for ever.
    """
    taken, scaled = saved["step"]["steps_taken"], saved["dtype"] == "float16"
    sides = {"step.generators": saved["step"]["generators"], "step.discriminators": saved["step"]["discriminators"]}
    for place, state in sides.items():
        _require(scaled == bool(state["scaler"]), f"{place}.scaler", f"does not go with {saved['dtype']}")
        moments, (group,) = state["optimizer"]["state"], state["optimizer"]["param_groups"]
        numbers = list(range(len(group["params"])))
        _require(group["params"] == numbers, f"{place}.optimizer.param_groups[0].params", "does not count from 0")
        if moments or (place == "step.generators" and taken):
            _require(sorted(moments) == numbers, f"{place}.optimizer.state", f"is not that of {len(numbers)} weights")
        for number, of_weight in moments.items():
            steps = of_weight["step"].item()
            due = min(taken, LAST_COUNTED_STEP)
            is_due = steps <= due if scaled else steps == due  # a scaler leaves steps out
            _require(is_due, f"{place}.optimizer.state.{number}.step", f"is {steps:.0f} after {taken} steps")


def _check_progress(saved: RunCheckpoint, config: Config | None) -> None:
    """Check that the run is somewhere on its schedule, and that its counts and its best evaluation are."""
    log, best = saved["log"], saved.get("best")
    step = log["step"]
    taken = saved["step"]["steps_taken"]
    _require(taken == step, "step.steps_taken", f"is {taken}, and log.step is {step}")
    _require(log["count"] <= step, "log.count", f"is {log['count']} at step {step}")
    _require(log["since_s"] <= log["elapsed_s"], "log.since_s", "is later than log.elapsed_s")
    _require((log["losses"] is None) == (step == 0), "log.losses", f"does not go with step {step}")
    if log["losses"]:
        _check_losses(log["losses"], "log.losses", log["count"])
        in_a_row = log["losses"]["in_a_row"]
        _require(bool((in_a_row <= step).all()), "log.losses.in_a_row", f"is above the {step} steps of the run")
    if best and not saved.get("rollbacks"):  # a run that went back keeps the best one of its future
        _require(best["step"] <= step, "best.step", f"is {best['step']}, and log.step is {step}")
    epochs = saved.get("epochs")
    if epochs:
        most = max(epochs["images"]) or epochs["steps"]  # older ones did not note images
        _require(epochs["steps"] <= most, "epochs.steps", f"is {epochs['steps']} of {most} images")
        _require(epochs["from_step"] <= step, "epochs.from_step", f"is {epochs['from_step']} at step {step}")
    if epochs and config:
        left = config.total_epochs - epochs["from_epoch"]
        _require(left >= 0, "epochs.from_epoch", f"is {epochs['from_epoch']} of {config.total_epochs} epochs")
        end = epochs["from_step"] + left * epochs["steps"]
        end = max(epochs["from_step"], min(end, config.run.max_steps or end))
        _require(step <= end, "log.step", f"is {step}, and the run ends at step {end}")


def _check_shares(saved: RunCheckpoint, config: Config) -> None:
    """Check that what all processes take together is what so many of them began with."""
    shares, began = saved.get("shares"), 1
    if not shares:
        return
    if not config.data.share_batch:
        began = shares["batch"] // config.data.batch_size
    whole = {"batch": config.data.batch_size * began, "pool": config.loss.pool_size * began}
    for name, due in whole.items():
        found = shares[name]  # type: ignore[literal-required]  # both names are keys
        _require(found == due and began > 0, f"shares.{name}", f"is {found}, and the configuration makes it {due}")


def _check_losses(losses: LossState, place: str, count: int) -> None:
    """Check that sums of losses have one number for each name, and were counted as often as the log says."""
    of_losses = {name: losses[name] for name in ("sums", "finite", "lost", "in_a_row")}
    for name, numbers in of_losses.items():
        found = len(numbers)
        _require(found == len(losses["names"]), f"{place}.{name}", f"has {found} of {len(losses['names'])} losses")
    counted = losses["finite"] + losses["lost"]
    _require(bool(((counted - count).abs() < 1e-3).all()), place, f"are not counted {count} times")


def _check_rank(rank: RankState, place: str, saved: RunCheckpoint, config: Config | None) -> None:
    """Check what a process has of its own: pools of the right images, and random states that generators take."""
    _check_pool(rank["step"]["pool_A"], f"{place}.step.pool_A", saved, config)
    _check_pool(rank["step"]["pool_B"], f"{place}.step.pool_B", saved, config)
    version, words, gauss = rank["step"]["pool_random"]
    is_state = type(version) is int and (gauss is None or type(gauss) is float) and type(words) is list
    # It takes larger words as well, and cuts them.
    is_state = is_state and all(type(word) is int and 0 <= word < 2**32 for word in words)
    try:
        random.Random().setstate((version, tuple(words), gauss) if is_state else (0, (), None))
    except (TypeError, ValueError, OverflowError) as error:
        raise WrongEntry(f"{place}.step.pool_random", "is no state of Python's generator") from error
    for name, state in _random_states(rank, place):
        try:
            torch.Generator().set_state(state.cpu())
        except RuntimeError as error:
            raise WrongEntry(name, "is no state of PyTorch's generator") from error
    schedule = rank.get("schedule")
    if schedule and config:
        follows = config.optimizer.learning_rate_policy == "plateau"
        plateau = schedule["plateau"]
        _require(follows == (plateau is not None), f"{place}.schedule.plateau", "does not go with the configuration")
        if plateau:
            most = config.optimizer.learning_rate
            is_lower = plateau["rate"] <= most
            _require(is_lower, f"{place}.schedule.plateau.rate", f"is {plateau['rate']}, above {most}")
    if schedule and schedule["losses"]:
        losses = schedule["losses"]
        counts = losses["finite"] + losses["lost"]
        _check_losses(losses, f"{place}.schedule.losses", int(counts.max()) if len(counts) else 0)


def _random_states(rank: RankState, place: str) -> Iterator[tuple[str, Tensor]]:
    yield f"{place}.random.cpu", rank["random"]["cpu"]
    yield f"{place}.step.penalty_random", rank["step"]["penalty_random"]


def _check_pool(pool: PoolState, place: str, saved: RunCheckpoint, config: Config | None) -> None:
    images = pool["images"]
    filled = pool.get("filled", len(images))
    _require(filled == len(images), f"{place}.images", f"has {len(images)} images of {filled}")
    side = config.data.crop_size if config and config.data.preprocess in CROPPING else None
    for index, image in enumerate(images):
        here, shape = f"{place}.images[{index}]", list(image.shape)
        _require(shape[0] == len(images[0]), here, f"is {shape}, unlike the others")
        _require(side is None or shape[1:] == [side, side], here, f"is {shape}, and crops have {side} pixels")
        is_working = str(image.dtype) == f"torch.{saved['dtype']}"
        _require(is_working, here, f"is of {image.dtype}, and the run computes in {saved['dtype']}")
    if config:
        # Ranks that others dealt their pools out to have as many places, or one more.
        most = -(-saved["shares"]["pool"] // len(saved["ranks"])) if "shares" in saved else config.loss.pool_size
        _require(len(images) <= most, f"{place}.images", f"has {len(images)} images, and {most} places")


def _require(condition: bool, place: str, problem: str) -> None:
    if not condition:
        raise WrongEntry(place, problem)
