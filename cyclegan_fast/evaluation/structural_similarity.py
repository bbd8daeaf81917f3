"""Computes SSIM, the structural similarity of two images (Wang et al. 2004).

torchmetrics, whose bits these are, takes three seconds of a processor to import: it brings matplotlib and scipy's
statistics, and every training that ends with scores would wait for them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

DEVIATION, REACH = 1.5, 5
"""The standard deviation of the window, a Gaussian, and how many pixels it reaches to each side."""
C1, C2 = 0.01**2, 0.03**2
"""The constants (K_1 L)^2 and (K_2 L)^2 that keep quotients finite, with a full scale L of 1 (equations 7 and 9)."""


def structural_similarity(one: Tensor, other: Tensor) -> Tensor:
    """Return SSIM [N, C, H, W] at each pixel of images of that shape, whose full scale is 1 (equation 13).

    The images are continued by reflection, so that each pixel has a whole window; their sides are at least 6.
    """
    channels = one.shape[1]
    window = _window(one).expand(channels, 1, -1, -1)
    one, other = (F.pad(images, (REACH,) * 4, mode="reflect") for images in (one, other))
    products = torch.cat((one, other, one * one, other * other, one * other))
    means = F.conv2d(products, window, groups=channels).chunk(5)
    squared_1, squared_2, product = means[0].square(), means[1].square(), means[0] * means[1]
    variances = (means[2] - squared_1).clamp_min(0.0) + (means[3] - squared_2).clamp_min(0.0)
    covariance = means[4] - product
    return ((2 * product + C1) * (2 * covariance + C2)) / ((squared_1 + squared_2 + C1) * (variances + C2))


def _window(images: Tensor) -> Tensor:
    """Return the weights [11, 11] of the window, whose sum is 1, in the images' dtype and on their device."""
    distance = torch.arange(-REACH, REACH + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-((distance / DEVIATION) ** 2) / 2)
    weights = weights / weights.sum()
    return weights[:, None] * weights
