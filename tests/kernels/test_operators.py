"""Reference operators equal definitions written out by hand, and refuse bad input.

What the reference computes is what every kernel is later held to, so here it is held to formulas alone: means and
variances as sums, reflection as a list of indices, convolution as a sum over taps, backward as in the derivation.
"""

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan_fast.kernels import Activation, conv2d_reflect, instance_norm, reflection_pad, residual_block
from cyclegan_fast.kernels.reflection_pad import _pad_by_slices

FLOAT64 = torch.float64
ACTIVATIONS: tuple[Activation, ...] = ("none", "relu", "leaky_relu")

# N, C, H, W and a pad. 3x3 with pad 2 and 5x5 with pad 3 fold up to nine gradients into one pixel.
SHAPES = [
    ((2, 3, 5, 7), 0),
    ((2, 3, 5, 7), 1),
    ((1, 1, 3, 3), 1),
    ((1, 2, 3, 3), 2),
    ((1, 2, 5, 5), 3),
    ((3, 4, 2, 9), 1),
    ((2, 3, 1, 4), 0),
    ((1, 5, 8, 6), 3),
]


def tensor(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=FLOAT64) * scale).requires_grad_(True)


def reflected(size: int, pad: int) -> list[int]:
    """Return which of `size` pixels each of size + 2*pad shows: ... 2 1 | 0 1 2 ... size-1 | size-2 size-3 ..."""
    period = list(range(size)) + list(range(size - 2, 0, -1))
    return [period[i % len(period)] for i in range(-pad, size + pad)]


def pad_by_hand(x: Tensor, pad: int) -> Tensor:
    rows, columns = reflected(x.size(2), pad), reflected(x.size(3), pad)
    return x[:, :, rows][:, :, :, columns]


def fold_by_hand(gradient: Tensor, pad: int) -> Tensor:
    """Return the adjoint of `pad_by_hand`: every pixel gathers the gradients of all places that show it."""
    rows = reflected(gradient.size(2) - 2 * pad, pad)
    columns = reflected(gradient.size(3) - 2 * pad, pad)
    folded = gradient.new_zeros(*gradient.shape[:2], len(rows) - 2 * pad, len(columns) - 2 * pad)
    for (i, row), (j, column) in product(enumerate(rows), enumerate(columns)):
        folded[:, :, row, column] += gradient[:, :, i, j]
    return folded


def norm_by_hand(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """((x - mean) / std, 1 / std) with the biased variance of each plane."""
    count = x.size(2) * x.size(3)
    mean = x.sum(dim=(2, 3), keepdim=True) / count
    variance = (x - mean).pow(2).sum(dim=(2, 3), keepdim=True) / count
    return (x - mean) / (variance + eps).sqrt(), 1 / (variance + eps).sqrt()


def slope_by_hand(x: Tensor, activation: Activation, negative_slope: float) -> Tensor:
    """Return the activation's derivative: its value is slope * x."""
    below = {"none": 1.0, "relu": 0.0, "leaky_relu": negative_slope}[activation]
    return torch.where(x > 0, torch.ones_like(x), torch.full_like(x, below))


def convolve_by_hand(x: Tensor, weight: Tensor) -> Tensor:
    """Cross-correlation without padding, tap by tap."""
    height, width = x.size(2) - 2, x.size(3) - 2
    taps = [
        torch.einsum("nchw,oc->nohw", x[:, :, i : i + height, j : j + width], weight[:, :, i, j])
        for i, j in product(range(3), range(3))
    ]
    return torch.stack(taps).sum(0)


def assert_same_values_and_gradients(found: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    cotangent = tensor(*found.shape, seed=99).detach()
    pairs = zip(
        torch.autograd.grad(found, inputs, cotangent, retain_graph=True),
        torch.autograd.grad(expected, inputs, cotangent),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


# --- values and gradients -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("residual", ["no residual", "contiguous residual", "strided residual"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("shape", "pad"), SHAPES)
def test_instance_norm_is_its_formula_in_values_and_gradients(
    shape: tuple[int, int, int, int], pad: int, activation: Activation, residual: str
) -> None:
    """Compares with y = pad(act((x - mean) / std) + residual) and dx = rstd (g - mean(g) - xhat mean(g xhat)).

    Here g = fold(dy) act'(xhat).
    """
    n, c, h, w = shape
    x = tensor(*shape, scale=2.0)
    buffer = tensor(n, c, h + 2, w + 2, seed=1)  # the interior of a padded buffer is strided
    other = {
        "no residual": None,
        "contiguous residual": buffer[:, :, 1:-1, 1:-1].contiguous(),
        "strided residual": buffer[:, :, 1:-1, 1:-1],
    }[residual]
    y = instance_norm(x, activation=activation, negative_slope=0.3, residual=other, pad=pad, eps=1e-3, impl="reference")

    normalised, reciprocal_deviation = norm_by_hand(x.detach(), 1e-3)
    slope = slope_by_hand(normalised, activation, 0.3)
    summed = slope * normalised + (0 if other is None else other.detach())
    torch.testing.assert_close(y, pad_by_hand(summed, pad), rtol=1e-10, atol=1e-12)

    dy = tensor(*y.shape, seed=2).detach()
    gradients = torch.autograd.grad(y, [x] if other is None else [x, buffer], dy)
    d_sum = fold_by_hand(dy, pad)
    g = d_sum * slope
    mean_g = g.mean(dim=(2, 3), keepdim=True)
    mean_gx = (g * normalised).mean(dim=(2, 3), keepdim=True)
    dx = reciprocal_deviation * (g - mean_g - normalised * mean_gx)
    torch.testing.assert_close(gradients[0], dx, rtol=1e-9, atol=1e-11)
    if other is not None:
        torch.testing.assert_close(gradients[1], F.pad(d_sum, (1, 1, 1, 1)), rtol=1e-12, atol=0)


def test_instance_norm_defaults_are_no_activation_no_pad_and_an_eps_of_1e_5() -> None:
    x = tensor(2, 3, 4, 5, scale=1e-3)  # so small that eps shows
    assert_same_values_and_gradients(instance_norm(x, impl="reference"), norm_by_hand(x, 1e-5)[0], [x])
    y = instance_norm(x, activation="leaky_relu", impl="reference")
    normalised = norm_by_hand(x, 1e-5)[0]
    assert_same_values_and_gradients(y, torch.where(normalised > 0, normalised, 0.2 * normalised), [x])


def test_partials_change_nothing_in_the_reference() -> None:
    x, weight = tensor(2, 3, 6, 5), tensor(4, 3, 3, 3, seed=1)
    y, partials = conv2d_reflect(x, weight, impl="reference")
    with_them = instance_norm(y, activation="relu", pad=1, partials=partials, impl="reference")
    assert torch.equal(with_them, instance_norm(y, activation="relu", pad=1, impl="reference"))


def test_instance_norm_couples_neither_images_nor_channels() -> None:
    x = tensor(3, 2, 4, 4)
    y = instance_norm(x, activation="relu", pad=1, impl="reference")
    for image, channel in product(range(3), range(2)):
        alone = instance_norm(x[image, channel][None, None], activation="relu", pad=1, impl="reference")
        torch.testing.assert_close(y[image, channel], alone[0, 0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_results_differ_from_float64_by_one_rounding(low: torch.dtype) -> None:
    """Statistics are wide: on the same rounded inputs only the result itself is rounded."""
    x = (tensor(2, 3, 32, 32) * 3 + 5).detach().to(low)
    y = instance_norm(x, activation="relu", pad=1, impl="reference")
    exact = pad_by_hand(norm_by_hand(x.double(), 1e-5)[0].clamp(min=0), 1)
    assert y.dtype == low
    assert ((y.double() - exact).abs() <= 0.51 * torch.finfo(low).eps * exact.abs().clamp(min=1e-2)).all()


def test_a_mean_a_thousand_times_the_deviation_does_not_cancel() -> None:
    x = (tensor(2, 3, 32, 32) + 1000).detach().float()
    exact = norm_by_hand(x.double(), 1e-5)[0]
    # A variance of mean(x^2) - mean(x)^2, whose terms are a million with a rounding of 0.06, would be off by a tenth.
    assert (instance_norm(x, impl="reference").double() - exact).abs().max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_constant_plane_normalises_to_zero_but_for_rounding_with_a_finite_gradient(dtype: torch.dtype) -> None:
    x = torch.full((1, 2, 4, 4), 3.0, dtype=dtype, requires_grad=True)
    y = instance_norm(x, pad=1, impl="reference")
    # Statistics round in float32 at the least; with a variance of 0 that is magnified by 1 / sqrt(eps) = 316.
    assert y.abs().max() <= 316 * 3 * torch.finfo(torch.float32).eps
    (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_without_eps_a_constant_plane_is_nan_and_every_other_its_formula(
    dtype: torch.dtype, batch: int, layout: torch.memory_format
) -> None:
    x = tensor(batch, 3, 5, 7).detach().to(dtype).contiguous(memory_format=layout)
    x[:, 1] = 0.1
    x.requires_grad_()
    y = instance_norm(x, activation="relu", pad=1, eps=0.0, impl="reference")
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y[:, 1].isnan().all()
    assert gradient[:, 1].isnan().all()
    assert gradient[:, ::2].isfinite().all()
    exact = pad_by_hand(norm_by_hand(x.detach().double()[:, ::2], 0.0)[0].relu(), 1)
    assert (y[:, ::2].double() - exact).abs().max() <= torch.finfo(dtype).eps * 4


@pytest.mark.parametrize(("shape", "pad"), SHAPES)
def test_reflection_pad_mirrors_without_repeating_the_edge(shape: tuple[int, int, int, int], pad: int) -> None:
    x = tensor(*shape)
    y = reflection_pad(x, pad, impl="reference")
    assert torch.equal(y, pad_by_hand(x, pad))
    dy = tensor(*y.shape, seed=1).detach()
    (dx,) = torch.autograd.grad(y, x, dy)
    torch.testing.assert_close(dx, fold_by_hand(dy, pad), rtol=1e-12, atol=1e-13)


def test_reflection_pad_of_a_row_of_four_by_three_is_the_row_one_would_write() -> None:
    row = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 1, 4, 4)
    assert reflection_pad(row, 3)[0, 0, 0].tolist() == [4, 3, 2, 1, 2, 3, 4, 3, 2, 1]


@pytest.mark.parametrize(("shape", "pad"), [(shape, pad) for shape, pad in SHAPES if pad])
def test_the_deterministic_pad_equals_pytorchs_in_values_and_gradients(
    shape: tuple[int, int, int, int], pad: int
) -> None:
    x = tensor(*shape)
    by_slices = _pad_by_slices(_pad_by_slices(x, pad, dim=2), pad, dim=3)
    assert_same_values_and_gradients(by_slices, F.pad(x, (pad, pad, pad, pad), mode="reflect"), [x])


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 2, 2), (2, 4, 3, 6)])
@pytest.mark.parametrize("channels_out", [1, 4])
def test_conv2d_reflect_is_a_sum_over_taps_of_reflected_indices(
    shape: tuple[int, int, int, int], channels_out: int
) -> None:
    x, weight = tensor(*shape), tensor(channels_out, shape[1], 3, 3, seed=1)
    y, _ = conv2d_reflect(x, weight, impl="reference")
    assert_same_values_and_gradients(y, convolve_by_hand(pad_by_hand(x, 1), weight), [x, weight])


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_partials_of_conv2d_reflect_combine_to_the_statistics_of_y(dtype: torch.dtype, wide: torch.dtype) -> None:
    x = tensor(2, 3, 9, 7).detach().to(dtype).requires_grad_(True)
    weight = tensor(4, 3, 3, 3, seed=1).detach().to(dtype).requires_grad_(True)
    y, partials = conv2d_reflect(x, weight, impl="reference")
    assert partials.dtype == wide
    assert not partials.requires_grad
    tiles = partials.size(1)
    assert partials.shape == (2, tiles, 3, 4)
    # However many tiles an implementation has: their counts add up, and so do mean and M2 as Chan et al. 1979 combine.
    count, mean, m2 = partials.double().unbind(2)
    total = count.sum(1)
    assert torch.equal(total, torch.full((2, 4), 63.0, dtype=FLOAT64))
    combined = (count * mean).sum(1) / total
    combined_m2 = m2.sum(1) + (count * (mean - combined[:, None]).square()).sum(1)
    exact = y.detach().double().flatten(2)
    tolerance = 1e-12 if wide == FLOAT64 else 1e-5
    torch.testing.assert_close(combined, exact.mean(2), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(combined_m2, exact.var(2, correction=0) * 63, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("pad_out", [0, 1])
@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (1, 1, 4, 4), (1, 4, 5, 4)])
def test_residual_block_is_its_composition_by_hand(shape: tuple[int, int, int, int], pad_out: int) -> None:
    channels = shape[1]
    x = tensor(*shape)
    weights = [tensor(channels, channels, 3, 3, seed=seed) for seed in (1, 2)]
    y = residual_block(x, *weights, pad_out=pad_out, eps=1e-3, impl="reference")
    middle = norm_by_hand(convolve_by_hand(x, weights[0]), 1e-3)[0].clamp(min=0)
    last = norm_by_hand(convolve_by_hand(pad_by_hand(middle, 1), weights[1]), 1e-3)[0]
    assert_same_values_and_gradients(y, pad_by_hand(last + x[:, :, 1:-1, 1:-1], pad_out), [x, *weights])


def test_blocks_on_padded_buffers_equal_blocks_that_pad_for_themselves() -> None:
    image = tensor(1, 3, 5, 6)
    weights = [tensor(3, 3, 3, 3, seed=seed) for seed in range(4)]
    buffer = reflection_pad(image, 1, impl="reference")
    buffer = residual_block(buffer, *weights[:2], impl="reference")  # pad_out is 1 unless told otherwise
    y = residual_block(buffer, *weights[2:], pad_out=0, impl="reference")
    expected = image
    for first, second in (weights[:2], weights[2:]):
        middle = norm_by_hand(convolve_by_hand(pad_by_hand(expected, 1), first), 1e-5)[0].clamp(min=0)
        expected = expected + norm_by_hand(convolve_by_hand(pad_by_hand(middle, 1), second), 1e-5)[0]
    assert_same_values_and_gradients(y, expected, [image, *weights])


def test_an_empty_batch_gives_empty_results_and_zero_weight_gradients() -> None:
    x = torch.empty(0, 3, 6, 5, requires_grad=True)
    weights = [torch.randn(3, 3, 3, 3, requires_grad=True) for _ in range(2)]
    residual = torch.empty(0, 3, 6, 5)
    assert reflection_pad(x, 2).shape == (0, 3, 10, 9)
    assert instance_norm(x, activation="leaky_relu", residual=residual, pad=1).shape == (0, 3, 8, 7)
    y, partials = conv2d_reflect(x, weights[0])
    assert y.shape == (0, 3, 6, 5)
    assert (partials.size(0), *partials.shape[2:]) == (0, 3, 3)
    assert instance_norm(y, partials=partials).shape == (0, 3, 6, 5)
    block = residual_block(x, *weights)
    assert block.shape == (0, 3, 6, 5)
    dx, *gradients = torch.autograd.grad(block.sum() + y.sum(), [x, *weights])
    assert dx.shape == x.shape
    assert not any(gradient.any() for gradient in gradients)


# --- refusals -------------------------------------------------------------------------------------------------------

X = torch.zeros(2, 3, 4, 5)
W = torch.zeros(3, 3, 3, 3)

REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "pad: 3-D": (lambda: reflection_pad(X[0], 1), ValueError, r"x must be \[N, C, H, W\], got 3 dimensions"),
    "pad: integers": (
        lambda: reflection_pad(X.int(), 1),
        TypeError,
        r"x must be a floating-point tensor \(float16, bfloat16, float32 or float64\), got torch.int32",
    ),
    "pad: as large as a side": (lambda: reflection_pad(X, 4), ValueError, "smaller than both sides of 4x5, got 4"),
    "pad: negative": (lambda: reflection_pad(X, -1), ValueError, "pad must be at least 0 .* got -1"),
    "norm: 5-D": (lambda: instance_norm(X[None]), ValueError, r"x must be \[N, C, H, W\], got 5 dimensions"),
    "norm: integers": (lambda: instance_norm(X.long()), TypeError, "x must be a floating-point tensor"),
    "norm: pad": (lambda: instance_norm(X, pad=4), ValueError, "smaller than both sides of 4x5, got 4"),
    "norm: one pixel": (lambda: instance_norm(X[:, :, :1, :1]), ValueError, "more than one pixel a plane"),
    "norm: activation": (
        lambda: instance_norm(X, activation="gelu"),  # type: ignore[arg-type]  # the mistake under test
        ValueError,
        "activation must be one of none, relu, leaky_relu, got 'gelu'",
    ),
    "norm: residual of another shape": (
        lambda: instance_norm(X, residual=X[:1]),
        ValueError,
        r"residual must have x's shape \(2, 3, 4, 5\), got \(1, 3, 4, 5\)",
    ),
    "norm: residual of another dtype": (
        lambda: instance_norm(X, residual=X.double()),
        TypeError,
        "residual must be torch.float32 on cpu as x is, got torch.float64 on cpu",
    ),
    "norm: residual on another device": (
        lambda: instance_norm(X, residual=torch.zeros_like(X, device="cpu" if X.is_meta else "meta")),
        TypeError,
        "residual must be torch.float32 on cpu as x is, got torch.float32 on ",
    ),
    "norm: partials without tiles": (
        lambda: instance_norm(X, partials=X.new_zeros(2, 3, 3)),
        ValueError,
        r"partials must be \[2, tiles, 3, 3\], got \(2, 3, 3\)",
    ),
    "norm: partials of other channels": (
        lambda: instance_norm(X, partials=X.new_zeros(2, 1, 3, 4)),
        ValueError,
        r"partials must be \[2, tiles, 3, 3\], got \(2, 1, 3, 4\)",
    ),
    "norm: partials of another batch": (
        lambda: instance_norm(X, partials=X.new_zeros(1, 1, 3, 3)),
        ValueError,
        r"partials must be \[2, tiles, 3, 3\]",
    ),
    "conv: 3-D": (lambda: conv2d_reflect(X[0], W), ValueError, r"x must be \[N, C, H, W\]"),
    "conv: integers": (lambda: conv2d_reflect(X.int(), W.int()), TypeError, "x must be a floating-point tensor"),
    "conv: a side of 1": (lambda: conv2d_reflect(X[:, :, :1], W), ValueError, "at least 2x2 .* got 1x5"),
    "conv: weight for other channels": (
        lambda: conv2d_reflect(X, W[:, :2]),
        ValueError,
        r"weight must be \[C_out, 3, 3, 3\], C_out at least 1, got \(3, 2, 3, 3\)",
    ),
    "conv: weight of another size": (lambda: conv2d_reflect(X, W[:, :, :1]), ValueError, r"got \(3, 3, 1, 3\)"),
    "conv: weight of another dtype": (
        lambda: conv2d_reflect(X, W.double()),
        TypeError,
        "weight must be torch.float32 on cpu as x is, got torch.float64",
    ),
    "block: 3-D": (lambda: residual_block(X[0], W, W), ValueError, r"x must be \[N, C, H, W\]"),
    "block: integers": (lambda: residual_block(X.int(), W, W), TypeError, "x must be a floating-point tensor"),
    "block: too small": (lambda: residual_block(X[:, :, :3], W, W), ValueError, "padded buffer of at least 4x4"),
    "block: weight1 of other channels": (
        lambda: residual_block(X, W[:, :2], W),
        ValueError,
        r"weight1 must be \[3, 3 / groups, 3, 3\]",
    ),
    "block: weight2 that widens": (
        lambda: residual_block(X, W, W.new_zeros(4, 3, 3, 3)),
        ValueError,
        "weight2 must keep x's 3 channels, got 4",
    ),
    "block: weight2 of more groups": (
        lambda: residual_block(X, W, W[:, :1]),
        ValueError,
        r"weight2 must have weight1's shape \(3, 3, 3, 3\), got \(3, 1, 3, 3\)",
    ),
    "block: weight2 of another dtype": (
        lambda: residual_block(X, W, W.half()),
        TypeError,
        "weight2 must be torch.float32 on cpu as x is, got torch.float16",
    ),
    "block: pad_out": (
        lambda: residual_block(X, W, W, pad_out=2),
        ValueError,
        "pad_out must be at least 0 and at most 1, got 2",
    ),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused_naming_the_argument(
    call: Callable[[], object],
    error: type[Exception],
    message: str,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On another device as well, where an operand that stayed on the CPU would be refused for that."""
    monkeypatch.setitem(globals(), "X", X.to(device))
    monkeypatch.setitem(globals(), "W", W.to(device))
    with pytest.raises(error, match=message.replace("cpu", device)):
        call()
