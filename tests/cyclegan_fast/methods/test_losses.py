"""Each loss against the formula of its paper, written out by itself, in values and gradients."""

import math
from collections.abc import Callable
from functools import partial
from typing import get_args

import pytest
import torch
from torch import Tensor

from cyclegan_fast.config.options import GanLoss
from cyclegan_fast.methods.losses import cycle_loss, discriminator_loss, generator_loss, gradient_penalty, identity_loss

GAN_LOSSES: tuple[GanLoss, ...] = get_args(GanLoss)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# (value, derivative) of one score; the loss is the mean over scores. Scores of exactly +-1, where a hinge has a corner,
# do not occur.
AS_REAL: dict[str, Callable[[float], tuple[float, float]]] = {
    "lsgan": lambda s: ((s - 1) ** 2, 2 * (s - 1)),
    "vanilla": lambda s: (-math.log(sigmoid(s)), sigmoid(s) - 1),
    "hinge": lambda s: (max(0.0, 1 - s), -1.0 if s < 1 else 0.0),
    "wgan-gp": lambda s: (-s, -1.0),
}
AS_GENERATED: dict[str, Callable[[float], tuple[float, float]]] = {
    "lsgan": lambda s: (s**2, 2 * s),
    "vanilla": lambda s: (-math.log(1 - sigmoid(s)), sigmoid(s)),
    "hinge": lambda s: (max(0.0, 1 + s), 1.0 if s > -1 else 0.0),
    "wgan-gp": lambda s: (s, 1.0),
}
GENERATOR = AS_REAL | {"hinge": AS_REAL["wgan-gp"]}  # a generator has no hinge (Lim and Ye 2017, eq. 10)


def scores(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(2, 1, 3, 4, generator=generator, dtype=torch.float64) * 2).requires_grad_(True)


def mean_by_hand(formula: Callable[[float], tuple[float, float]], x: Tensor, weight: float) -> tuple[float, Tensor]:
    """Return weight * mean formula(x), and its gradient."""
    pairs = [formula(value) for value in x.flatten().tolist()]
    value = weight * sum(value for value, _ in pairs) / len(pairs)
    gradient = torch.tensor([weight * slope / len(pairs) for _, slope in pairs], dtype=torch.float64)
    return value, gradient.view_as(x)


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
def test_generator_loss_is_its_formula_in_value_and_gradient(gan_loss: GanLoss) -> None:
    fake = scores(0)
    value, gradient = mean_by_hand(GENERATOR[gan_loss], fake, 1.0)
    loss = generator_loss(fake, gan_loss)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, fake)[0], gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
def test_discriminator_loss_is_half_of_both_formulas_in_value_and_gradient(gan_loss: GanLoss) -> None:
    real, fake = scores(1), scores(2)
    real_value, real_gradient = mean_by_hand(AS_REAL[gan_loss], real, 0.5)
    fake_value, fake_gradient = mean_by_hand(AS_GENERATED[gan_loss], fake, 0.5)
    loss = discriminator_loss(real, fake, gan_loss)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(real_value + fake_value, rel=1e-12)
    gradients = torch.autograd.grad(loss, (real, fake))
    torch.testing.assert_close(gradients[0], real_gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(gradients[1], fake_gradient, rtol=1e-12, atol=1e-14)


def test_vanilla_losses_stay_finite_at_scores_that_overflow_an_exponential() -> None:
    far = torch.tensor([[[[-2000.0, 2000.0]]]])
    assert generator_loss(far, "vanilla").item() == pytest.approx(1000.0)
    assert discriminator_loss(far, far, "vanilla").item() == pytest.approx(1000.0)


@pytest.mark.parametrize("loss", [cycle_loss, identity_loss])
def test_cycle_and_identity_loss_are_the_mean_absolute_error(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    pairs = list(zip(image.flatten().tolist(), target.flatten().tolist(), strict=True))
    value = loss(image, target)
    assert value.item() == pytest.approx(sum(abs(x - y) for x, y in pairs) / 120, rel=1e-12)
    signs = torch.tensor([math.copysign(1 / 120, x - y) for x, y in pairs], dtype=torch.float64).view_as(image)
    torch.testing.assert_close(torch.autograd.grad(value, image)[0], signs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gan_loss", GAN_LOSSES)
def test_losses_of_two_directions_are_those_of_each_one_block_of_channels(gan_loss: GanLoss) -> None:
    torch.manual_seed(0)
    real, fake = (torch.randn(2, 6, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    losses: list[Callable[..., Tensor]] = [
        partial(discriminator_loss, gan_loss=gan_loss),
        lambda one, other, **options: generator_loss(other, gan_loss, **options),
        lambda one, other, **options: generator_loss(other, gan_loss, to_be_taken_for="fake", **options),
        cycle_loss,
        identity_loss,
    ]
    for loss in losses:
        together = loss(real, fake, directions=2)
        apart = torch.stack([loss(real[:, :3], fake[:, :3]), loss(real[:, 3:], fake[:, 3:])])
        assert together.shape == (2,)
        torch.testing.assert_close(together, apart, rtol=1e-12, atol=0)
        by_both = [
            torch.autograd.grad(value, fake, torch.tensor([2.0, -3.0]).to(value))[0] for value in (together, apart)
        ]
        torch.testing.assert_close(*by_both, rtol=1e-12, atol=0)


def quadratic(curvature: Tensor) -> Callable[[Tensor], Tensor]:
    """D(x) [N, 1, 2, 2] of images [N, 3, 4, 4]: scores that add up to curvature x^2 / 2, of slope curvature x."""

    def discriminator(x: Tensor) -> Tensor:
        per_pixel = (0.5 * curvature * x * x).sum(dim=1, keepdim=True)  # [N, 1, 4, 4]
        return per_pixel.unfold(2, 2, 2).unfold(3, 2, 2).sum(dim=(4, 5))

    return discriminator


def test_gradient_penalty_is_half_of_ten_times_the_squared_excess_of_the_slope_over_one() -> None:
    torch.manual_seed(0)
    real, fake = (torch.rand(3, 3, 4, 4, dtype=torch.float64) * 2 - 1 for _ in range(2))
    mix = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64).view(3, 1, 1, 1)
    real[2] *= 0.1  # a slope below one counts as much as one above
    curvature = torch.rand(3, 4, 4, dtype=torch.float64, requires_grad=True)

    penalty = gradient_penalty(quadratic(curvature), real, fake, mix)
    (gradient,) = torch.autograd.grad(penalty, curvature)

    # By hand: slope_n = |c x_n|, d slope_n / dc = c x_n^2 / slope_n; the second image is 0.3 real + 0.7 fake.
    expected, expected_gradient = 0.0, torch.zeros_like(curvature)
    slopes = []
    c = curvature.detach()
    for x in (fake[0], 0.3 * real[1] + 0.7 * fake[1], real[2]):
        slope = math.sqrt(((c * x) ** 2).sum().item())
        slopes.append(slope)
        expected += 5 * (slope - 1) ** 2 / 3
        expected_gradient += 5 * 2 * (slope - 1) / 3 * c * x**2 / slope
    assert min(slopes) < 1 < max(slopes)
    assert penalty.item() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-11, atol=1e-14)


def test_gradient_penalty_sends_no_gradient_into_the_images() -> None:
    real, fake = (torch.rand(1, 3, 4, 4, requires_grad=True) for _ in range(2))
    curvature = torch.rand(3, 4, 4, requires_grad=True)
    torch.autograd.backward(gradient_penalty(quadratic(curvature), real, fake, torch.full((1, 1, 1, 1), 0.5)))
    assert real.grad is None
    assert fake.grad is None
    assert curvature.grad is not None


def generator_score_loss(gan_loss: GanLoss, score: Tensor, _: Tensor) -> Tensor:
    return generator_loss(score, gan_loss)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_losses_of_low_precision_inputs_are_those_of_the_same_numbers_in_float32(low: torch.dtype) -> None:
    real, fake = (scores(seed).detach().to(low).requires_grad_(True) for seed in (3, 4))
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cycle": cycle_loss, "identity": identity_loss}
    for gan_loss in GAN_LOSSES:
        losses[f"generator {gan_loss}"] = partial(generator_score_loss, gan_loss)
        losses[f"discriminator {gan_loss}"] = partial(discriminator_loss, gan_loss=gan_loss)
    for name, loss in losses.items():
        value = loss(real, fake)
        assert value.dtype == torch.float32, name
        assert torch.equal(value, loss(real.float(), fake.float())), name
        (gradient,) = torch.autograd.grad(value, real)
        assert gradient.dtype == low, name


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_gradient_penalty_of_low_precision_slopes_is_computed_in_float32(low: torch.dtype) -> None:
    # 300 pixels of slope 30 have a norm of 519.6: in bfloat16 a sum of their squares stops growing at 256 terms, in
    # float16 it overflows.
    image = torch.zeros(1, 3, 10, 10, dtype=low)
    penalty = gradient_penalty(lambda x: 30 * x, image, image, torch.ones(1, 1, 1, 1, dtype=low))
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(5 * (30 * math.sqrt(300) - 1) ** 2, rel=1e-6)


def test_an_unknown_gan_loss_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="unknown gan_loss 'wgan'"):
        generator_loss(torch.zeros(1), "wgan")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(ValueError, match="unknown gan_loss 'wgan'"):
        discriminator_loss(torch.zeros(1), torch.zeros(1), "wgan")  # type: ignore[arg-type]  # the mistake under test
