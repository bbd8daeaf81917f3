"""Does what torchrun does with the command of a training, in processes forked from one that has imported it.

The agent is torchrun's own, with its rendezvous, restarts and signals; only its ranks are forked instead of started,
which spares each of them the seconds of its imports.
"""

import sys
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.distributed.elastic.agent.server.api import SignalException
from torch.distributed.elastic.multiprocessing import api
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import elastic_launch
from torch.distributed.run import config_from_args, parse_args

from cyclegan_fast import train

_in_its_rank = api._wrap


def main(arguments: Sequence[str]) -> int:
    """Take torchrun's command line, whose script is `-m cyclegan_fast.train`; return torchrun's exit status."""
    given = parse_args(list(arguments))
    if (given.module, given.training_script) != (True, "cyclegan_fast.train"):
        raise ValueError(f"only -m cyclegan_fast.train is forked, got {given.training_script}")
    if given.standalone:
        given.rdzv_backend, given.rdzv_endpoint, given.rdzv_id = "c10d", "localhost:0", str(uuid.uuid4())
    config, _, _ = config_from_args(given)
    api._wrap = _without_waiting
    try:
        elastic_launch(replace(config, start_method="fork"), _rank)(given.training_script_args)
    except (ChildFailedError, SignalException) as error:
        print(str(error).strip().splitlines()[0], file=sys.stderr)
        return 1
    return 0


def _rank(arguments: Sequence[str]) -> None:
    """Train as one rank; a status other than 0 ends the process with it."""
    sys.argv = ["cyclegan_fast.train", *arguments]
    status = train.main(list(arguments))
    sys.stdout.flush()
    if status:
        sys.exit(status)


def _without_waiting(*arguments: Any) -> None:
    """Run a forked rank, which else waits for its agent to fetch a result: one that stops its ranks fetches none."""
    arguments[7].set()  # `queue_finished_reading_event`
    _in_its_rank(*arguments)
