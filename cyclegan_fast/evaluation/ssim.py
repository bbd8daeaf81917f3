"""Computes the structural similarity of images, SSIM, of Wang et al. 2004 (IEEE Transactions on Image Processing 13).

torchmetrics has the same values to the last bit, which a test holds; but to import it takes four seconds, for
matplotlib and scipy.signal, and every training ends with this metric.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SIGMA = 1.5  # pixels, of the Gaussian window
_RADIUS = 5  # pixels: 11 of them a window
_C1, _C2 = 0.01**2, 0.03**2  # (K1 L)^2 and (K2 L)^2 of section III-B, of values from 0 to L = 1


def ssim_map(images: Tensor, others: Tensor) -> Tensor:
    """Return the SSIM [N, C, H, W] of the windows around each value (equation 13), of values from 0 to 1.

    Both [N, C, H, W] in float64, of more than 5 pixels a side; they are continued by reflection.
    """
    one, other = (F.pad(values, (_RADIUS,) * 4, mode="reflect") for values in (images, others))
    moments = torch.cat([one, other, one * one, other * other, one * other])
    channels = images.size(1)
    window = _window(images.device).expand(channels, 1, -1, -1)
    means = F.conv2d(moments, window, groups=channels)
    mean, other_mean, square, other_square, product = torch.split(means, len(images))
    variance = (square - mean.square()).clamp_min(0.0)  # below 0 by rounding alone
    other_variance = (other_square - other_mean.square()).clamp_min(0.0)
    covariance = product - mean * other_mean
    alike = (2 * (mean * other_mean) + _C1) * (2 * covariance + _C2)
    found = alike / ((mean.square() + other_mean.square() + _C1) * (variance + other_variance + _C2))
    return found.contiguous()  # a mean then has the same bits whatever the layout of the images


def _window(device: torch.device) -> Tensor:
    """Return the Gaussian window [11, 11] in float64, whose sum is 1."""
    distance = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64, device=device) / _SIGMA
    weights = torch.exp(-distance.square() / 2)
    weights = weights / weights.sum()
    return torch.outer(weights, weights)
