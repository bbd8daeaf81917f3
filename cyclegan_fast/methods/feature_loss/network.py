"""Gives the network of the "feature loss + GAN" baseline (Zhu et al. 2017, section 5.1.2), and computes that loss.

The paper compares images in relu4_2 of a VGG-16 that was trained on ImageNet. Where its weights are not at hand, a
small network of the same kind is trained on the images themselves, see rotation.py.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cyclegan_fast.kernels.dispatch import wide
from cyclegan_fast.methods.feature_loss.rotation import (
    Domains,
    RotationTraining,
    is_trained_here,
    load_features,
    origin_of,
    train_on_rotations,
    write_features,
)
from cyclegan_fast.methods.feature_loss.vgg import Vgg, VggActivation, load_vgg

ACTIVATION = "relu4_2"


class FeatureNetwork(NamedTuple):
    """Holds a frozen network from images [N, 3, h, w] in [-1, 1] to features [N, C, h / 8, w / 8]."""

    network: nn.Module
    description: str
    """a phrase that the user reads"""
    digest: str
    """the SHA-256 of its weights"""


def feature_network(
    file: Path | None,
    *,
    images: Domains,
    size: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    keep_as: Path,
    progress: bool = True,
    training: RotationTraining | None = None,
) -> FeatureNetwork:
    """Return relu4_2 of a VGG-16, or of a network trained on the images to tell their rotations apart.

    The network is in eval mode, its parameters are frozen, and it is differentiable with respect to its input. It has
    no statistics of a batch.

    Args:
        file: torchvision's vgg16-397923af.pth, or a network that was trained here, from whatever images. With None one
            is trained, and read from `keep_as` the next time.
        images: both domains, of any sizes.
        size: the side of the square that images are resized to for training, pixels.
        seed: fixes that training; on a CPU to the bit.
        dtype: the precision that the network computes in; it is trained in float32.
        keep_as: the file that a trained network is kept in.
        progress: whether a bar shows the training.
        training: the settings of that training; by default the usual ones.

    Raises UserError where `file` is no such file, where `keep_as` was trained from other images or settings, and where
    a domain has too few images.
    """
    network: Vgg
    if file is not None and file.is_file() and is_trained_here(file):
        network, description = load_features(file)
    elif file is not None:
        network, description = load_vgg(file, 16), f"a VGG-16, {file}"
    else:
        training = training or RotationTraining()
        origin = origin_of(images, size, training, seed)
        if not keep_as.exists():
            trained, accuracies = train_on_rotations(images, size, training, seed, device, progress)
            write_features(keep_as, trained, origin, accuracies)
        network, description = load_features(keep_as, origin)  # also just after training: the same bits ever after
    digest = hashlib.sha256()
    for weight in network.state_dict().values():
        digest.update(weight.cpu().contiguous().numpy().data)
    frozen = VggActivation(network, ACTIVATION).to(device, dtype).eval().requires_grad_(False)
    return FeatureNetwork(frozen, f"{ACTIVATION} of {description}", digest.hexdigest())


def feature_loss(network: Callable[[Tensor], Tensor], image: Tensor, translation: Tensor) -> Tensor:
    """Return the L1 between features of an image and its translation, relative to the image's: |f(y) - f(x)| / |f(x)|.

    The term that takes the cycle's place in the baseline of Zhu et al. 2017, section 5.1.2, which has |f(y) - f(x)|: as
    a share its weight means the same whatever the scale of a network's activations. Images [N, 3, H, W] in [-1, 1]; a
    scalar, the mean over images, in float32, float64 from float64. Its gradient reaches the translation only.
    """
    with torch.no_grad():
        target = wide(network(image))
        scale = target.abs().mean((1, 2, 3)).clamp(min=torch.finfo(target.dtype).tiny)
    difference = (wide(network(translation)) - target).abs().mean((1, 2, 3))
    return (difference / scale).mean()
