"""Refuses trainings that are certain not to fit in memory, before anything is allocated or written.

Counted is what each takes at the least, which activations exceed by far: `training/trouble.py` tells of the others when
they allocate.
"""

import numpy as np
import torch

from cyclegan_fast.config.options import Config, NetworkConfig
from cyclegan_fast.images.pixel_type import RGB
from cyclegan_fast.methods.registry import method_of
from cyclegan_fast.system.errors import UserError
from cyclegan_fast.system.process import installed_bytes

BYTES_PER_WEIGHT = 12  # in float32, with Adam's two moments; gradients come and go


def check_memory(config: Config, device: torch.device) -> None:
    """Raise UserError where the networks by themselves, or two images, do not fit in the memory there is."""
    side = config.data.load_size
    _require_memory(least_bytes_of_images(config), installed_bytes(), "two images", f"a lower --load-size than {side}")
    networks = config.networks
    if max(networks.ngf, networks.ndf) <= NetworkConfig.ngf:
        return  # they take a third of a GiB at most, and to count them takes a moment
    on_gpu = device.type == "cuda"
    there = torch.cuda.get_device_properties(device).total_memory if on_gpu else installed_bytes()
    _require_memory(least_bytes_of_networks(config), there, "the networks", "a lower --ngf or --ndf")


def least_bytes_of_networks(config: Config) -> int:
    """Return the bytes of the trained networks' weights and of Adam's moments, by networks that are never allocated."""
    with torch.device("meta"):
        networks = method_of(config).networks().values()
    return BYTES_PER_WEIGHT * sum(weight.numel() for network in networks for weight in network.parameters())


def least_bytes_of_images(config: Config) -> int:
    """Return the bytes of one image of each domain as it is resized; 0 where images keep their own sizes.

    Batches are not counted, since one may be larger than the data set.
    """
    if config.data.preprocess != "resize_and_crop":
        return 0
    dtypes = config.data.dtype_a or RGB.dtype, config.data.dtype_b or RGB.dtype
    of_a_pixel = sum(count * np.dtype(dtype).itemsize for count, dtype in zip(config.channels, dtypes, strict=True))
    return of_a_pixel * config.data.load_size**2


def _require_memory(needed: int, there: int, what: str, instead: str) -> None:
    if needed > there:
        raise UserError(
            f"the memory does not suffice: {what} alone take {needed / 2**30:.1f} GiB, and there are "
            f"{there / 2**30:.1f}; give {instead}"
        )
