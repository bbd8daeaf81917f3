"""Computes the losses of Zhu et al. 2017 (section 3) and other adversarial losses in use, as pure functions.

Scores are a discriminator's output [N, 1, h, w]; images are [N, 3, H, W] in [-1, 1]. Every loss is a scalar, computed
in float32 from low-precision inputs and in float64 from float64 ones. Where the networks of several `directions` are
computed as one, their scores or images lie one behind the other along the channels, [N, directions * C, H, W], and a
loss is [directions], that of each.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.config.options import GanLoss
from cyclegan_fast.networks.layers import wide

Taken = Literal["real", "fake"]


def generator_loss(
    fake_score: Tensor, gan_loss: GanLoss, *, to_be_taken_for: Taken = "real", directions: int = 1
) -> Tensor:
    """Return the loss that a generator minimises so that its images are taken for real ones.

    "lsgan" is mean (D(fake) - 1)^2 (Mao et al. 2017; Zhu et al. 2017, section 4), "vanilla" the non-saturating cross
    entropy (Goodfellow et al. 2014, section 3), "hinge" and "wgan-gp" are -mean D(fake). Where one discriminator tells
    two generators apart, one of them wants its images `to_be_taken_for` the other's, that is for "fake" ones: then the
    least squares are those of D(fake) - 0, and the other losses change the score's sign.
    """
    score = wide(fake_score)
    if gan_loss == "lsgan":
        return _mean((score - 1 if to_be_taken_for == "real" else score).square(), directions)
    if to_be_taken_for == "fake":
        score = -score
    if gan_loss == "vanilla":
        return _mean(F.softplus(-score), directions)
    if gan_loss in ("hinge", "wgan-gp"):
        return -_mean(score, directions)
    raise ValueError(f"unknown gan_loss {gan_loss!r}")


def discriminator_loss(real_score: Tensor, fake_score: Tensor, gan_loss: GanLoss, *, directions: int = 1) -> Tensor:
    """Return the loss that a discriminator minimises: half the sum of its losses on real and on generated images.

    The half slows the discriminator against the generator (Zhu et al. 2017, section 7.1). "lsgan": mean (D(real) - 1)^2
    and mean D(fake)^2; "vanilla": cross entropy; "hinge": Lim and Ye 2017, eq. 9; "wgan-gp": Gulrajani et al. 2017,
    eq. 3, whose last term is `gradient_penalty`.
    """
    real, fake = wide(real_score), wide(fake_score)
    if gan_loss == "lsgan":
        return 0.5 * (_mean((real - 1).square(), directions) + _mean(fake.square(), directions))
    if gan_loss == "vanilla":
        return 0.5 * (_mean(F.softplus(-real), directions) + _mean(F.softplus(fake), directions))
    if gan_loss == "hinge":
        return 0.5 * (_mean(F.relu(1 - real), directions) + _mean(F.relu(1 + fake), directions))
    if gan_loss == "wgan-gp":
        return 0.5 * (_mean(fake, directions) - _mean(real, directions))
    raise ValueError(f"unknown gan_loss {gan_loss!r}")


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, mix: Tensor, weight: float = 10.0
) -> Tensor:
    """Return half of weight * mean (|grad D(x)| - 1)^2 at x = mix*real + (1 - mix)*fake (Gulrajani et al. 2017, eq. 3).

    mix [N, 1, 1, 1], uniform in [0, 1]. Differentiable, so `discriminator` must have second derivatives.
    """
    mixed = (mix * real + (1 - mix) * fake).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(wide(discriminator(mixed)).sum(), mixed, create_graph=True)
    norm = wide(gradient).flatten(1).norm(dim=1)
    penalty: Tensor = (norm - 1).square().mean()
    return 0.5 * weight * penalty


def cycle_loss(reconstructed: Tensor, original: Tensor, *, directions: int = 1) -> Tensor:
    """Return the mean absolute error of G_B(G_A(x)) against x (Zhu et al. 2017, eq. 2)."""
    return _mean_absolute_error(reconstructed, original, directions)


def identity_loss(identity: Tensor, original: Tensor, *, directions: int = 1) -> Tensor:
    """Return the mean absolute error of G_A(y) against y, an image of G_A's target domain (Zhu et al. 2017, 5.2)."""
    return _mean_absolute_error(identity, original, directions)


def pixel_loss(translation: Tensor, original: Tensor) -> Tensor:
    """Return the mean absolute error of G_A(x) against x (Shrivastava et al. 2017, eq. 3; Zhu et al. 2017, 5.1.2)."""
    return _mean_absolute_error(translation, original)


def paired_loss(translation: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute error of G_A(x) against x's true translation (Isola et al. 2017, eq. 3)."""
    return _mean_absolute_error(translation, truth)


def _mean_absolute_error(one: Tensor, other: Tensor, directions: int = 1) -> Tensor:
    return _mean((wide(one) - wide(other)).abs(), directions)


def _mean(x: Tensor, directions: int) -> Tensor:
    """Return the mean of x, a scalar, or of each direction's block of channels, [directions]."""
    return x.mean() if directions == 1 else x.unflatten(1, (directions, -1)).mean((0, 2, 3, 4))
