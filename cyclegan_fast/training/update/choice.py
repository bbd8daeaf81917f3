"""Chooses by a configuration and a device whether a step can be a CUDA graph, and what of it is computed at once."""

import torch

from cyclegan_fast.config.options import CROPPING, Config
from cyclegan_fast.kernels.dispatch import choose
from cyclegan_fast.methods.model import Model
from cyclegan_fast.methods.registry import METHODS
from cyclegan_fast.system.distributed import Ranks
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.training.update.direction_streams import CudaStreamPair, StreamPair
from cyclegan_fast.training.update.direction_threads import DirectionThreads, gains_from_threads
from cyclegan_fast.training.update.step_parts import StepParts

MOST_PIXELS_ON_TWO_STREAMS = 4 * 256 * 256
"""Pixels of the images of one domain that a step computes at once, up to which `--streams auto` takes two.

Not measured. `python -m bench.model` predicts for an H200 20% less time at batch 1 and 5% at 16, but does not know that
two streams take the L2 cache from each other. That counts where a norm reads again what it hopes to find there: of 4
images, which a generator is given with 4 of the other domain, a block's activation takes 17 MB of 60. Above, two
streams also hold twice the activations where these are large. With `--paired` the second stream has what
`second_stream.py` gives it instead of a direction, and what that is computed from is held for longer."""


def check_gpu_options(config: Config, device: torch.device) -> None:
    """Refuse --cuda-graph on and --streams 2 where it can be seen that they cannot be, before anything is written."""
    reason = reason_against_a_graph(config, device)
    if config.run.cuda_graph == "on" and reason:
        raise UserError(f"--cuda-graph on: {reason}")
    streams_of(config, device)


def reason_against_a_graph(config: Config, device: torch.device) -> str | None:
    """Say why the steps of this configuration cannot be recorded on this device; returns None where they can."""
    if device.type != "cuda":
        return f"there are no CUDA graphs on a {device.type}"
    if config.data.preprocess not in CROPPING:
        return f"--preprocess {config.data.preprocess} gives each image a shape of its own"
    if METHODS[config.loss.method].discriminators_first and config.networks.dropout and config.optimizer.accumulate > 1:
        return "--accumulate makes translations twice, and a graph cannot drop the same activations again"
    if config.run.profile:
        return "--profile tells apart the phases of a step, which a graph runs as one"
    return None


def reason_against_two_streams(config: Config, device: torch.device) -> str | None:
    """Say why a step of this configuration cannot run on two streams of this device; returns None where it can."""
    if device.type != "cuda":
        return f"there are no CUDA streams on a {device.type}"
    if config.networks.has_batch_norm:
        return "a batch norm keeps running statistics, which are written in the order of one stream"
    if config.run.paired and config.run.compile:
        return "--paired has gradients of weights on the second one, and --compile puts them where its graph has them"
    if config.run.paired and (config.networks.norm != "instance" or config.networks.impl == "reference"):
        return "--paired has gradients of fused blocks on the second one, and these networks have none"
    if config.run.profile:
        return "--profile tells apart the phases of a step, of which two would run at once"
    return None


def streams_of(config: Config, device: torch.device) -> int:
    """Return how many streams a step is computed on; raises UserError where it cannot be the two that are asked for.

    "auto" takes two where a graph launches them (without one the host is busy launching for one) and where the images
    are so few that one stream does not fill the GPU.
    """
    reason = reason_against_two_streams(config, device)
    if config.run.streams == "2" and reason:
        raise UserError(f"--streams 2: {reason}")
    if config.run.streams != "auto" or reason:
        return 2 if config.run.streams == "2" else 1
    pixels = config.data.batch_size * config.data.crop_size**2 / config.optimizer.accumulate
    is_recorded = config.run.cuda_graph != "off" and reason_against_a_graph(config, device) is None
    return 2 if is_recorded and pixels <= MOST_PIXELS_ON_TWO_STREAMS else 1


def stream_pair_of(config: Config, device: torch.device) -> StreamPair | None:
    """Return the two streams that a step is computed on, or None where it is one."""
    return CudaStreamPair(device) if streams_of(config, device) > 1 else None


def directions_of(config: Config, device: torch.device, dtype: torch.dtype, *, scaled: bool) -> StepParts:
    """Return what computes the two directions on one stream, at once where that is faster.

    Args:
        dtype: the precision that the networks compute in.
        scaled: whether losses are scaled.
    """
    has_threads = not config.run.paired and gains_from_threads(config, device, dtype, scaled=scaled)
    return DirectionThreads() if has_threads else StepParts()


def updates_directly(config: Config, model: Model, ranks: Ranks, *, scaled: bool) -> bool:
    """Tell whether updates read low-precision gradients where they lie, and write the copies of the weights as well.

    Not on a CPU, where PyTorch's Adam is one pass over the weights. Ranks average a buffer of gradients, a scaler looks
    at all of them before it lets any weight change, and of parts of a batch there are more gradients than two.
    """
    weight = next(model.parameters())
    if scaled or ranks.count > 1 or config.optimizer.accumulate > 1 or weight.device.type == "cpu":
        return False
    is_suited = weight.dtype == torch.float32
    return is_suited and choose("adam_update", config.networks.impl, weight) == "triton"
