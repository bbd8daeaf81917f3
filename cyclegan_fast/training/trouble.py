"""Explains a device's errors in a training: adds what is kept, and which flags need less memory or no kernel."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.conventions import SMALLEST_DISCRIMINATOR_SIDE
from cyclegan_fast.system.device import working_dtype
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.shortage import DoesNotFit, is_out_of_memory
from cyclegan_fast.system.trouble import device_failure
from cyclegan_fast.system.words import alternatives
from cyclegan_fast.training.update.choice import reason_against_a_graph, streams_of

BY_FLAG = "--impl reference"


@contextmanager
def told_of_training(config: Config, device: torch.device, saved_step: Callable[[], int | None]) -> Iterator[None]:
    """Turn what a device raises in a training into a UserError that names a way to go on.

    Args:
        saved_step: returns the step of the last checkpoint; None where nothing was saved.
    """
    try:
        yield
    except DoesNotFit:
        raise
    except (RuntimeError, MemoryError) as error:
        said = _lack_of_memory(error, config, device) or device_failure(error, device, BY_FLAG)
        if said is None:
            raise
        raise UserError(f"{said}; {what_is_kept(saved_step())}") from error


def what_is_kept(saved_step: int | None) -> str:
    """Say which checkpoint there is."""
    return f"the checkpoint of step {saved_step} is kept" if saved_step else "nothing was saved"


def _lack_of_memory(error: Exception, config: Config, device: torch.device) -> str | None:
    if not is_out_of_memory(error):
        return None
    ways = []
    if same := _flags_for_the_same_run(config, device):
        ways.append(f"the same command needs less with {alternatives(same)}")
    if other := _flags_for_another_run(config, device):
        ways.append(f"another run (--name NEW) with {alternatives(other)}")
    return f"the memory of {device} does not suffice: {', '.join(ways) or 'train on smaller images'}"


def _flags_for_the_same_run(config: Config, device: torch.device) -> list[str]:
    """Return the flags that lower a step's memory, change results by rounding at the most, and are not given yet."""
    networks, flags = config.networks, []
    if networks.blocks and not networks.checkpoint_blocks and networks.norm != "batch" and not networks.dropout:
        flags.append("--checkpoint-blocks")
    batch, parts = config.data.batch_size, config.optimizer.accumulate
    more_parts = next((n for n in range(parts + 1, batch + 1) if batch % n == 0), None)
    if more_parts and networks.norm != "batch":
        flags.append(f"--accumulate {more_parts}")
    if config.run.cuda_graph != "off" and reason_against_a_graph(config, device) is None:
        flags.append("--cuda-graph off (a graph keeps its memory to itself)")
    if streams_of(config, device) > 1:
        flags.append("--streams 1")
    if config.run.paired:
        flags.append("--no-paired")
    return flags


def _flags_for_another_run(config: Config, device: torch.device) -> list[str]:
    """Return the flags that lower a step's memory, change what is trained, and are not given yet."""
    data, flags = config.data, []
    if not config.run.amp and working_dtype(device, amp=True, amp_dtype="auto")[0] != torch.float32:
        flags.append("--amp")
    if data.batch_size > 1:
        flags.append("a lower --batch-size")
    if data.preprocess in CROPPING and data.crop_size > SMALLEST_DISCRIMINATOR_SIDE:
        flags.append("a lower --crop-size")
    if data.preprocess == "scale_width" and data.load_size > SMALLEST_DISCRIMINATOR_SIDE:
        flags.append("a lower --load-size")
    return flags
