"""Checks that a run can go on from a checkpoint: that it has the run's networks, and no later end or attempt.

checkpoint/consistency.py checks what a checkpoint says by itself. One that is wrong here is damaged as well: the one
before it is used.
"""

from cyclegan_fast.checkpoint.consistency import is_of_this_version
from cyclegan_fast.checkpoint.content import RunCheckpoint
from cyclegan_fast.checkpoint.description import WrongEntry
from cyclegan_fast.config.options import Config
from cyclegan_fast.config.values import from_dict
from cyclegan_fast.methods.saved_networks import check_networks
from cyclegan_fast.training.extension import ends_no_earlier


def check_resumable(saved: RunCheckpoint, of_run: Config, went_back: int) -> None:
    """Raise WrongEntry where a run cannot go on from a checkpoint.

    Args:
        saved: what `check_content` has found right by itself.
        of_run: the configuration in the run's folder.
        went_back: how often the run has gone back.
    """
    check_networks(saved, of_run)
    if saved.get("rollbacks", 0) > went_back:
        raise WrongEntry("rollbacks", f"is {saved['rollbacks']}, and the run went back {went_back} times")
    if "begun_with" in saved and bool(saved["begun_with"]) != bool(of_run.networks.init_from):
        raise WrongEntry("begun_with", "does not go with init_from of the run's config.yaml")
    if is_of_this_version(saved) and not ends_no_earlier(of_run, from_dict(saved["config"], "config")):
        raise WrongEntry("config", "has a later end than the run's config.yaml")
