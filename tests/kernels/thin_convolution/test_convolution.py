"""Convolutions from and to a few channels are as accurate as PyTorch's, whatever the sizes, groups and divisions."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from cyclegan_fast.kernels import Impl
from cyclegan_fast.kernels.gpus import Gpu, planning_for
from cyclegan_fast.kernels.plans import ThinPlan, forcing
from cyclegan_fast.kernels.thin_convolution.convolution import conv2d_from_thin, conv2d_to_thin, suits_thin
from cyclegan_fast.kernels.traffic import counting_kernels
from cyclegan_fast.kernels.triton_language import INTERPRETED
from tests.kernels.accuracy import assert_accurate, assert_as_accurate_as_pytorch
from tests.kernels.conftest import DEVICE
from tests.kernels.operands import LAYOUTS, sample, values

pytestmark = pytest.mark.usefixtures("unwritten_memory_is_nan")

BF16 = torch.bfloat16
TINY = Gpu("a GPU of one multiprocessor", 90, 1, 1 << 20, 100, 100)
"""on which programs have several units and chunks of many rows"""
# Images, groups, wide channels, kernel, height and width of x, thin channels, and the GPU that is planned for.
SIZES = {
    "as in a generator, narrow": (1, 1, 16, 7, 9, 70, 3, None),
    "two groups, two images, few programs": (2, 2, 32, 7, 11, 38, 3, TINY),
    "channels that are no power of two, kernel 5": (1, 2, 24, 5, 12, 11, 4, TINY),
    "one channel, kernel 3": (2, 1, 20, 3, 6, 35, 1, None),
    "six channels, two groups": (1, 2, 16, 3, 6, 35, 6, TINY),
    "a result of one pixel": (1, 1, 16, 7, 7, 7, 3, None),
}
SOME = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
HALVES = pytest.mark.parametrize("dtype", [BF16, torch.float16], ids=["bfloat16", "float16"])
Size = tuple[int, int, int, int, int, int, int, Gpu | None]


def to_thin(groups: int = 1, *, tanh: bool = False) -> Callable[..., Tensor]:
    def operator(impl: Impl, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return conv2d_to_thin(x, weight, bias, groups=groups, tanh=tanh, impl=impl)

    return operator


def from_thin(groups: int = 1) -> Callable[..., Tensor]:
    return lambda impl, x, weight: conv2d_from_thin(x, weight, groups=groups, impl=impl)


def operands(size: Size, dtype: torch.dtype, *, result_is_thin: bool) -> tuple[Tensor, Tensor]:
    images, groups, wide, kernel, height, width, thin, _ = size
    inputs, outputs = (wide, thin) if result_is_thin else (thin, wide)
    scale = (inputs * kernel**2) ** -0.5
    weight = values(groups * outputs, inputs, kernel, kernel, seed=1, scale=scale, dtype=dtype)
    x = sample(images, groups * inputs, height, width, dtype=dtype)
    return x, weight.contiguous(memory_format=torch.channels_last).requires_grad_()


@SOME
@HALVES
def test_to_a_thin_tensor(dtype: torch.dtype, size: Size) -> None:
    x, weight = operands(size, dtype, result_is_thin=True)
    bias = values(len(weight), seed=2, dtype=dtype)
    with planning_for(size[-1]) if size[-1] else nullcontext():
        assert_as_accurate_as_pytorch(to_thin(size[1], tanh=True), x, weight, bias, wanted=[0, 1])


@SOME
@HALVES
def test_from_a_thin_tensor(dtype: torch.dtype, size: Size) -> None:
    x, weight = operands(size, dtype, result_is_thin=False)
    with planning_for(size[-1]) if size[-1] else nullcontext():
        assert_as_accurate_as_pytorch(from_thin(size[1]), x, weight)


@pytest.mark.slow
@pytest.mark.parametrize("thin", [1, 5, 13, 16])
def test_images_of_many_channels_of_which_programs_have_four_each(thin: int) -> None:
    size: Size = (2, 1, 16, 7, 9, 38, thin, TINY)
    with planning_for(TINY):
        x, weight = operands(size, BF16, result_is_thin=True)
        assert_as_accurate_as_pytorch(to_thin(tanh=True), x, weight, values(thin, seed=2, dtype=BF16), wanted=[0, 1])
        assert_as_accurate_as_pytorch(from_thin(), *operands(size, BF16, result_is_thin=False))


@pytest.mark.parametrize("tanh", [False, True])
def test_the_gradient_of_a_bias_is_a_sum_over_pixels(tanh: bool) -> None:
    x, weight = operands(SIZES["one channel, kernel 3"], BF16, result_is_thin=True)
    bias = values(1, seed=2, dtype=BF16).requires_grad_()
    y = to_thin(tanh=tanh)("triton", x, weight, bias)
    (found,) = torch.autograd.grad(y, bias, torch.ones_like(y))
    wide = [t.detach().double() for t in (x, weight, bias)]
    exact = F.conv2d(*wide)  # type: ignore[arg-type]  # a list of three tensors
    exact = 1 - exact.tanh().square() if tanh else torch.ones_like(exact)
    assert float((found.double() - exact.sum()).abs() / exact.sum()) < 0.01


@pytest.mark.parametrize("plan", [ThinPlan(32, 16), ThinPlan(64, 32), ThinPlan(16, 64)], ids=repr)
def test_tiles_of_any_length(plan: ThinPlan) -> None:
    size: Size = (1, 1, 16, 7, 12, 75, 3, None)
    with forcing(plan), planning_for(TINY):
        assert_as_accurate_as_pytorch(to_thin(), *operands(size, BF16, result_is_thin=True))
        assert_as_accurate_as_pytorch(from_thin(), *operands(size, BF16, result_is_thin=False))


@pytest.mark.parametrize("lay", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_any_layout(lay: Callable[[Tensor], Tensor]) -> None:
    size: Size = (2, 1, 16, 3, 6, 7, 3, TINY)
    with planning_for(TINY):
        for operator, result_is_thin in ((to_thin(), True), (from_thin(), False)):
            x, weight = operands(size, BF16, result_is_thin=result_is_thin)
            y = operator("triton", x, weight)
            dy = values(*y.shape, dtype=BF16, seed=3)
            leaf = x.detach()
            others = [lay(t.detach()) for t in (leaf, weight)]
            same = [t.contiguous().requires_grad_() for t in others]
            others = [t.requires_grad_() for t in others]
            laid = operator("triton", *others)
            expected = operator("triton", *same)
            assert torch.equal(laid, expected)
            found = torch.autograd.grad(laid, others, lay(dy))
            exact = torch.autograd.grad(expected, same, lay(dy).contiguous())
            if result_is_thin:
                # PyTorch computes this one, and rounds it by the layout on processors without bfloat16.
                torch.testing.assert_close(found[0], exact[0], rtol=2**-7, atol=2**-6)
            else:
                assert torch.equal(found[0], exact[0])
            assert torch.equal(found[1], exact[1])


@pytest.mark.slow
def test_bits_repeat_and_one_image_s_do_not_depend_on_the_others() -> None:
    x, weight = operands((2, 2, 16, 5, 8, 70, 3, None), BF16, result_is_thin=True)
    twice = [to_thin(2)("triton", x, weight) for _ in range(2)]
    assert torch.equal(*twice)
    assert torch.equal(twice[0][1:], to_thin(2)("triton", x[1:].detach(), weight))
    dy = values(*twice[0].shape, dtype=BF16, seed=3)
    gradients = [torch.autograd.grad(y, [x, weight], dy) for y in twice]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_what_is_not_finite_reaches_the_pixels_that_see_it_and_no_others() -> None:
    x, weight = operands((1, 1, 16, 7, 17, 75, 3, None), BF16, result_is_thin=True)
    with torch.no_grad():
        y = to_thin()("triton", x, weight)
        x[0, 5, 9, 40] = float("inf")
        found = to_thin()("triton", x, weight)
    sees = torch.zeros(11, 69, dtype=torch.bool, device=DEVICE)
    sees[3:10, 34:41] = True
    assert not found[0, :, sees].isfinite().any()
    assert torch.equal(found[0, :, ~sees], y[0, :, ~sees])


def test_a_gradient_that_is_not_finite_shows_in_the_weights() -> None:
    x, weight = operands((1, 1, 16, 7, 12, 12, 3, None), BF16, result_is_thin=True)
    y = to_thin()("triton", x, weight)
    dy = torch.ones_like(y)
    dy[0, 1, 2, 3] = float("nan")
    (found,) = torch.autograd.grad(y, weight, dy)
    assert found[1].isnan().all()
    assert found[[0, 2]].isfinite().all()


def test_an_empty_batch() -> None:
    for operator, result_is_thin in ((to_thin(), True), (from_thin(), False)):
        x, weight = operands((1, 1, 16, 7, 9, 9, 3, None), BF16, result_is_thin=result_is_thin)
        empty = x[:0].detach().requires_grad_()
        y = operator("triton", empty, weight)
        assert y.shape[0] == 0
        dx, dw = torch.autograd.grad(y, [empty, weight], torch.zeros_like(y))
        assert dx.shape == empty.shape
        assert dw.count_nonzero() == 0


def test_autocast_gives_the_operator_what_it_gives_a_convolution() -> None:
    x, weight = operands((1, 1, 16, 3, 6, 6, 3, None), BF16, result_is_thin=True)
    wide_x, wide_weight, bias = x.float(), weight.float(), values(3)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = conv2d_to_thin(wide_x, wide_weight, bias, impl="triton")
    assert torch.equal(found, conv2d_to_thin(x, weight, bias.to(BF16), impl="triton"))


def test_fake_results_have_the_shapes_and_strides_of_real_ones() -> None:
    operators = torch.ops.cyclegan_fast
    x, weight = (t.detach() for t in operands((2, 2, 16, 3, 6, 7, 3, None), BF16, result_is_thin=True))
    image, stem = (t.detach() for t in operands((2, 2, 16, 3, 6, 7, 3, None), BF16, result_is_thin=False))
    thin, wide = values(2, 6, 4, 5, dtype=BF16), values(2, 32, 4, 5, dtype=BF16)
    calls = [
        (operators.conv2d_to_thin.default, (x, weight, None, 2, True)),
        (operators.conv2d_to_thin_wgrad.default, (thin, x, 3, 2)),
        (operators.conv2d_from_thin.default, (image, stem, 2)),
        (operators.conv2d_from_thin_dgrad.default, (wide, stem, 2)),
        (operators.conv2d_from_thin_wgrad.default, (wide, image, 3, 2)),
    ]
    for operator, arguments in calls:
        real = operator(*arguments)
        with FakeTensorMode() as mode:
            fake = operator(*(mode.from_tensor(a) if isinstance(a, Tensor) else a for a in arguments))
        assert (fake.shape, fake.stride(), fake.dtype) == (real.shape, real.stride(), real.dtype), operator


def test_a_second_derivative_is_refused() -> None:
    x, weight = operands((1, 1, 16, 3, 5, 5, 3, None), BF16, result_is_thin=True)
    (dx,) = torch.autograd.grad(to_thin()("triton", x, weight).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(dx.sum(), weight)


X, W = values(1, 16, 8, 8, dtype=BF16), values(3, 16, 3, 3, dtype=BF16)
WRONG: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "float32 in Triton": (lambda: conv2d_to_thin(X.float(), W.float(), impl="triton"), TypeError, "takes float16 or"),
    "an even kernel": (lambda: conv2d_to_thin(X, W[:, :, :2, :2], impl="triton"), TypeError, "odd kernels up to 7"),
    "too many channels": (lambda: conv2d_to_thin(X, W.repeat(6, 1, 1, 1), impl="triton"), TypeError, "at most 16"),
    "groups": (lambda: conv2d_to_thin(X, W, groups=2), ValueError, r"weight must be \[C_out, 16 / 2, K, K\]"),
    "dtypes": (lambda: conv2d_from_thin(X, W.float()), TypeError, "weight must be torch.bfloat16 on"),
    "bias": (
        lambda: conv2d_to_thin(X, W, values(2, dtype=BF16)),
        ValueError,
        r"bias must be \[3\], got \(2,\)",
    ),
    "a small image": (lambda: conv2d_to_thin(X[:, :, :2], W), ValueError, "at least as large as the kernel"),
}


@pytest.mark.parametrize(("call", "error", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_refused(call: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_what_the_kernels_do_not_take_goes_to_the_reference_unless_they_are_asked_for() -> None:
    assert suits_thin("conv2d_to_thin", X, W)
    assert not suits_thin("conv2d_from_thin", X, W)  # the other side is thin
    assert not suits_thin("conv2d_to_thin", X.float(), W.float())
    assert not suits_thin("conv2d_to_thin", X, values(64, 16, 3, 3, dtype=BF16))  # no side is thin
    x, w = X.double(), W.double()
    assert torch.equal(conv2d_to_thin(x, w), F.conv2d(x, w))
    assert_accurate(
        "y", conv2d_to_thin(X, W, tanh=True), F.conv2d(X, W).tanh(), F.conv2d(x, w).tanh(), is_gradient=False
    )


@pytest.mark.skipif(not INTERPRETED, reason="bytes are counted in Triton's interpreter")
def test_each_program_reads_its_rows_once_and_the_weights_once() -> None:
    height, width, chunks = 20, 58, 4  # of y: one strip of 64 pixels, two programs for each multiprocessor
    x, weight = (t.detach() for t in operands((1, 1, 16, 7, height + 6, width + 6, 3, None), BF16, result_is_thin=True))
    with planning_for(Gpu("two multiprocessors", 90, 2, 1 << 20, 100, 100)), counting_kernels() as traffic:
        conv2d_to_thin(x, weight, impl="triton")
    rows = height + chunks * 6
    assert traffic.launches == 1
    assert traffic.read_bytes == 2 * (rows * 64 * 16 + chunks * weight.numel())
    assert traffic.written_bytes == 2 * height * width * 3
