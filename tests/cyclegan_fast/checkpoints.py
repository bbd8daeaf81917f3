"""Makes whole checkpoints of runs that nobody trained."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from cyclegan_fast.checkpoint.content import RandomStates, RunCheckpoint
from cyclegan_fast.config import values
from cyclegan_fast.config.options import Config, NetworkConfig, OptimizerConfig
from cyclegan_fast.methods.model import Model
from cyclegan_fast.training.history.shares import RankShares
from cyclegan_fast.training.loss_sums import LossSums
from cyclegan_fast.training.step import TrainingStep

NARROW = NetworkConfig(generator="resnet_6", ngf=4, ndf=4)
"""Networks so narrow that a checkpoint of them is small; the generators of `make_generator`."""


def checkpoint_of(config: Config, networks: Mapping[str, nn.Module], *, step: int = 0) -> RunCheckpoint:
    """Return the checkpoint of a run after some steps that changed nothing, with some networks in place of its own.

    Where one of them is a moving average ("G_A_ema"), the run keeps averages.
    """
    if any(name.endswith("_ema") for name in networks):
        config = replace(config, optimizer=replace(config.optimizer, ema=0.9))
    model = Model(config)
    for name, network in networks.items():
        model.get_submodule(name).load_state_dict(network.state_dict())
    update = TrainingStep(model, config, torch.float32)
    update.steps_taken = step
    for descent in (update.generators, update.discriminators) if step else ():
        for group in descent.optimizer.param_groups:
            for parameter in group["params"]:
                moments = {name: torch.zeros_like(parameter.detach()) for name in ("exp_avg", "exp_avg_sq")}
                descent.optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    losses = LossSums.of(None, list(model.method.losses), torch.device("cpu")).state_dict() if step else None
    random: RandomStates = {"cpu": torch.get_rng_state(), "cuda": None}
    return {
        "config": values.to_dict(config),
        "data": "names",
        "content": "images",
        "dtype": "float32",
        "model": dict(model.state_dict()),
        "step": update.state_dict(),
        "log": {"step": step, "elapsed_s": 1.0, "losses": losses, "count": 0, "since_s": 1.0},
        "ranks": [
            {"step": update.rank_state_dict(), "schedule": {"plateau": None, "losses": None}, "random": random},
        ],
        "shares": RankShares.of(config, None, 1).state_dict(),
        "prepared": None,
        "epochs": {"steps": 1, "from_step": 0, "from_epoch": 0, "images": [1, 1]},
        "begun_with": [],
        "finished": False,
        "best": None,
        "rollbacks": 0,
    }


def narrow_checkpoint(step: int = 0) -> RunCheckpoint:
    """Return a small checkpoint."""
    return checkpoint_of(Config(networks=NARROW, optimizer=OptimizerConfig()), {}, step=step)


def older(checkpoint: Mapping[str, Any], *without: str) -> RunCheckpoint:
    """Return a checkpoint as versions wrote it that counted no formats, without some of the entries that came later."""
    left_out = ("checkpoint_format", "written_by", *without)
    return cast(RunCheckpoint, {name: value for name, value in checkpoint.items() if name not in left_out})
