"""Computes the losses of Zhu et al. 2017 (section 3) and other adversarial losses in use, as pure functions.

Scores are a discriminator's output [N, 1, h, w]; images are [N, C, H, W] in [-1, 1]. Every loss is a scalar, computed
in float32 from low-precision inputs and in float64 from float64 ones. Where the networks of several `directions` are
computed as one, their scores or images lie one behind the other along the channels, [N, directions * C, H, W], and a
loss is [directions], that of each. `impl` chooses who computes least squares and absolute errors, see
`kernels.dispatch.choose`; a `weight` costs them nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.config.options import GanLoss
from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.dispatch import wide
from cyclegan_fast.kernels.elementwise.mean_error import ErrorKind, mean_by_direction, mean_error, weighted

Taken = Literal["real", "fake"]


def generator_loss(
    fake_score: Tensor,
    gan_loss: GanLoss,
    *,
    to_be_taken_for: Taken = "real",
    weight: float = 1.0,
    directions: int = 1,
    impl: Impl = "auto",
) -> Tensor:
    """Return the loss that a generator minimises so that its images are taken for real ones.

    "lsgan" is mean (D(fake) - 1)^2 (Mao et al. 2017; Zhu et al. 2017, section 4), "vanilla" the non-saturating cross
    entropy (Goodfellow et al. 2014, section 3), "hinge" and "wgan-gp" are -mean D(fake). Where one discriminator tells
    two generators apart, one of them wants its images `to_be_taken_for` the other's, that is for "fake" ones: then the
    least squares are those of D(fake) - 0, and the other losses change the score's sign.
    """
    if gan_loss == "lsgan":
        kind: ErrorKind = "from 1" if to_be_taken_for == "real" else "from 0"
        return mean_error(fake_score, None, kind, weight=weight, directions=directions, impl=impl)
    score = wide(fake_score)
    if to_be_taken_for == "fake":
        score = -score
    if gan_loss == "vanilla":
        return weighted(weight, mean_by_direction(F.softplus(-score), directions))
    if gan_loss in ("hinge", "wgan-gp"):
        return weighted(weight, -mean_by_direction(score, directions))
    raise ValueError(f"unknown gan_loss {gan_loss!r}")


def discriminator_loss(
    real_score: Tensor, fake_score: Tensor, gan_loss: GanLoss, *, directions: int = 1, impl: Impl = "auto"
) -> Tensor:
    """Return the loss that a discriminator minimises: half the sum of its losses on real and on generated images.

    The half slows the discriminator against the generator (Zhu et al. 2017, section 7.1). "lsgan": mean (D(real) - 1)^2
    and mean D(fake)^2; "vanilla": cross entropy; "hinge": Lim and Ye 2017, eq. 9; "wgan-gp": Gulrajani et al. 2017,
    eq. 3, whose last term is `gradient_penalty`.
    """
    if gan_loss == "lsgan":
        error = partial(mean_error, weight=0.5, directions=directions, impl=impl)
        if real_score.shape == fake_score.shape:
            return error(real_score, fake_score, "from 1 and 0")
        return error(real_score, None, "from 1") + error(fake_score, None, "from 0")
    real, fake = wide(real_score), wide(fake_score)
    if gan_loss == "vanilla":
        return 0.5 * (
            mean_by_direction(F.softplus(-real), directions) + mean_by_direction(F.softplus(fake), directions)
        )
    if gan_loss == "hinge":
        return 0.5 * (mean_by_direction(F.relu(1 - real), directions) + mean_by_direction(F.relu(1 + fake), directions))
    if gan_loss == "wgan-gp":
        return 0.5 * (mean_by_direction(fake, directions) - mean_by_direction(real, directions))
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


def cycle_loss(
    reconstructed: Tensor, original: Tensor, *, weight: float = 1.0, directions: int = 1, impl: Impl = "auto"
) -> Tensor:
    """Return weight * the mean absolute error of G_B(G_A(x)) against x (Zhu et al. 2017, eq. 2)."""
    return mean_error(reconstructed, original, "absolute", weight=weight, directions=directions, impl=impl)


def identity_loss(
    identity: Tensor, original: Tensor, *, weight: float = 1.0, directions: int = 1, impl: Impl = "auto"
) -> Tensor:
    """Return weight * the mean absolute error of G_A(y) against y, an image of G_A's target domain (ibid., 5.2)."""
    return mean_error(identity, original, "absolute", weight=weight, directions=directions, impl=impl)


def pixel_loss(translation: Tensor, original: Tensor, *, weight: float = 1.0, impl: Impl = "auto") -> Tensor:
    """Return weight * the mean absolute error of G_A(x) against x (Shrivastava et al. 2017, eq. 3)."""
    return mean_error(translation, original, "absolute", weight=weight, impl=impl)


def paired_loss(translation: Tensor, truth: Tensor, *, weight: float = 1.0, impl: Impl = "auto") -> Tensor:
    """Return weight * the mean absolute error of G_A(x) against x's true translation (Isola et al. 2017, eq. 3)."""
    return mean_error(translation, truth, "absolute", weight=weight, impl=impl)
