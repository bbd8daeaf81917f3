"""Hold the operators in C to the reference, in every layout, and to saying why where they cannot run."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cyclegan_fast.kernels import Impl, dispatch, instance_norm, reflection_pad
from cyclegan_fast.kernels.cpu import compilation
from cyclegan_fast.kernels.dispatch import Activation

LAYOUTS = [torch.contiguous_format, torch.channels_last]
# Channels below, at and above a vector's; rows that are no multiple of one; one image and several; one channel.
SHAPES = [(2, 3, 5, 6), (1, 17, 4, 4), (2, 32, 33, 20), (3, 1, 9, 9), (1, 130, 7, 7), (1, 64, 160, 40)]


@pytest.fixture(autouse=True)
def a_compiler() -> None:
    if not compilation.is_compiled():
        pytest.skip("there is no C compiler")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def operands(
    shape: tuple[int, int, int, int], layout: torch.memory_format, pad: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, a residual that is the interior of a padded buffer, and the gradient of the result."""
    generator = torch.Generator().manual_seed(sum(shape) + pad)
    batch, channels, height, width = shape

    def values(*sides: int) -> Tensor:
        x = torch.randn(batch, channels, *sides, generator=generator, dtype=torch.float64)
        return x.to(dtype).contiguous(memory_format=layout)

    x = (values(height, width) * 2 + 5).detach()
    return x, values(height + 2, width + 2)[:, :, 1:-1, 1:-1], values(height + 2 * pad, width + 2 * pad)


def results(
    impl: Impl, x: Tensor, residual: Tensor | None, dy: Tensor, activation: Activation, pad: int
) -> list[Tensor]:
    leaves = [each.detach().requires_grad_() for each in (x, residual) if each is not None]
    y = instance_norm(
        leaves[0],
        residual=leaves[1] if residual is not None else None,
        activation=activation,
        negative_slope=0.3,
        pad=pad,
        eps=1e-3,
        impl=impl,
    )
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("activation", dispatch.ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("two_threads")
def test_the_norm_is_the_references_in_float64(
    shape: tuple[int, int, int, int], activation: Activation, pad: int, layout: torch.memory_format
) -> None:
    x, residual, dy = operands(shape, layout, pad)
    for other in (None, residual, residual.contiguous(), residual.contiguous(memory_format=torch.channels_last)):
        found = results("c", x, other, dy, activation, pad)
        dense = [None if each is None else each.contiguous() for each in (x, other, dy)]
        expected = results("reference", *dense, activation, pad)  # type: ignore[arg-type]  # x and dy are there
        for one, exact in zip(found, expected, strict=True):
            torch.testing.assert_close(one, exact, rtol=1e-9, atol=1e-11)
        assert found[0].is_contiguous(memory_format=layout)
        assert found[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)], ids=str)
def test_low_precision_is_rounded_once(dtype: torch.dtype, rounding: float, layout: torch.memory_format) -> None:
    """Take a mean of ten deviations, with which statistics in bfloat16 would be off by more."""
    x, _, dy = operands((2, 48, 40, 40), layout, 0, dtype)
    x = x + 15
    y, dx = results("c", x, None, dy, "relu", 0)
    exact, exact_dx = results("reference", x.double(), None, dy.double(), "relu", 0)
    assert (y.double() - exact).abs().max() <= rounding * exact.abs().max()
    assert (dx.double() - exact_dx).abs().max() <= 1.1 * rounding * exact_dx.abs().max()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_mean_a_thousand_times_the_deviation_does_not_cancel(layout: torch.memory_format) -> None:
    x = (operands((1, 20, 64, 64), layout, 0)[0] + 2000).float()
    exact = instance_norm(x.double(), impl="reference")
    assert (instance_norm(x, impl="c").double() - exact).abs().max() < 1e-3


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("value", [0.1, -30.1, 1e-4])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 17, 4, 33), (2, 2, 90, 90)], ids=str)
def test_a_plane_of_one_value_has_that_mean_and_no_deviation(
    shape: tuple[int, int, int, int], value: float, layout: torch.memory_format
) -> None:
    """Take values whose sum over the plane is rounded, and the mean with it."""
    x = torch.full(shape, value).contiguous(memory_format=layout)
    assert not instance_norm(x, impl="c").any()
    assert instance_norm(x, eps=0.0, impl="c").isnan().all()


def test_what_is_not_a_number_stays_so() -> None:
    x = torch.randn(1, 32, 4, 4)
    x[0, 3, 1, 1] = float("nan")
    for low in (x, x.bfloat16()):
        found = instance_norm(low, activation="relu", impl="c").isnan()
        assert found[0, 3].all()
        assert found.sum() == 16


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(layout: torch.memory_format) -> None:
    x, residual, dy = operands((1, 64, 160, 40), layout, 1, torch.bfloat16)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(results("c", x, residual, dy, "relu", 1))
    torch.set_num_threads(before)
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    ("shape", "pad"), [((2, 3, 5, 6), 1), ((1, 70, 4, 4), 3), ((1, 2, 2, 3), 1), ((2, 5, 9, 7), 0)]
)
def test_the_pad_is_the_references(shape: tuple[int, int, int, int], pad: int, layout: torch.memory_format) -> None:
    x, _, dy = operands(shape, layout, pad)
    found, expected = [], []
    for impl, kept in (("c", found), ("reference", expected)):
        leaf = (x if impl == "c" else x.contiguous()).detach().requires_grad_()
        y = reflection_pad(leaf, pad, impl=impl)  # type: ignore[arg-type]  # the two above
        kept += [y.detach(), torch.autograd.grad(y, leaf, dy)[0]]
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-12, atol=1e-13)


def test_nothing_is_computed_of_an_empty_batch() -> None:
    x = torch.empty(0, 3, 4, 4, requires_grad=True)
    y = reflection_pad(instance_norm(x, pad=1, impl="c"), 1, impl="c")
    assert y.shape == (0, 3, 8, 8)
    assert torch.autograd.grad(y.sum(), x)[0].shape == x.shape


def test_the_compiler_of_torch_sees_an_operator() -> None:
    x, residual, dy = operands((2, 8, 6, 6), torch.channels_last, 1, torch.float32)

    def computed(x: Tensor) -> Tensor:
        return reflection_pad(instance_norm(x, residual=residual, activation="relu", pad=1), 1)

    expected_leaf, leaf = (x.detach().requires_grad_() for _ in range(2))
    expected = computed(expected_leaf)
    found = torch.compile(computed, backend="aot_eager", fullgraph=True)(leaf)
    assert torch.equal(found, expected)
    dy = torch.ones_like(expected)
    assert torch.equal(torch.autograd.grad(found, leaf, dy)[0], torch.autograd.grad(expected, expected_leaf, dy)[0])


def test_the_operators_hold_their_promises_to_torch() -> None:
    x, residual, _ = operands((2, 8, 6, 6), torch.channels_last, 1)
    leaf = x.detach().requires_grad_()
    torch.library.opcheck(torch.ops.cyclegan_fast.instance_norm_in_c.default, (leaf, residual, 0.0, 1, 1e-5))
    torch.library.opcheck(torch.ops.cyclegan_fast.reflection_pad_on_cpu.default, (leaf, 1))


def test_a_second_derivative_is_refused() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    for y in (instance_norm(x, impl="c"), reflection_pad(x, 1, impl="c")):
        (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no second derivative"):
            gradient.sum().backward()


def test_what_cannot_run_is_refused_by_name() -> None:
    x = torch.zeros(1, 2, 4, 4)
    with pytest.raises(TypeError, match=r"takes float32, bfloat16 or float64, got torch\.float16"):
        instance_norm(x.half(), impl="c")
    with pytest.raises(RuntimeError, match="there is no residual_block in C"):
        dispatch.choose("residual_block", "c", x)
    with pytest.raises(RuntimeError, match="needs a CPU tensor, got one on meta"):
        dispatch.choose("instance_norm", "c", x.to("meta"))


def test_results_are_on_the_cpu_whatever_the_default_device_is() -> None:
    x = torch.randn(1, 2, 5, 6, requires_grad=True)
    expected = instance_norm(x, activation="relu", pad=1, impl="c")
    with torch.device("meta"):
        y = instance_norm(x, activation="relu", pad=1, impl="c")
        (gradient,) = torch.autograd.grad(y, x, torch.ones(y.shape, device="cpu"))
    assert torch.equal(y, expected)
    assert gradient.device.type == "cpu"


def test_nothing_passes_through_a_relus_negative_side_not_even_what_is_infinite() -> None:
    x = torch.tensor([-3.0, -2.0, 2.0, 3.0]).reshape(1, 1, 2, 2).requires_grad_()
    dy = torch.tensor([math.inf, 1.0, 2.0, -1.0]).reshape(1, 1, 2, 2)
    y, expected = (instance_norm(x, activation="relu", impl=impl) for impl in ("c", "reference"))
    assert not torch.signbit(y).any()
    torch.testing.assert_close(torch.autograd.grad(y, x, dy)[0], torch.autograd.grad(expected, x, dy)[0])


def test_forward_mode_is_refused_and_no_tangent_is_lost() -> None:
    x = torch.randn(1, 2, 5, 6)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        for call in (
            lambda: instance_norm(dual, impl="c"),
            lambda: instance_norm(x, residual=dual, impl="c"),
            lambda: reflection_pad(dual, 1, impl="c"),
        ):
            with pytest.raises(RuntimeError, match="no forward-mode derivative: use impl='reference'"):
                call()
    zeros = torch._efficientzerotensor(1, 2, 5, 6)
    assert not instance_norm(zeros, residual=zeros, impl="c").any()


def test_what_is_compiled_is_loaded_only_from_a_folder_that_nobody_else_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compilation.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(compilation, "_VECTORS", ("-O0",))
    mask = os.umask(0o002)  # many systems' own, by which compilers let a group write to what they make
    try:
        made = compilation._compiled()
    finally:
        os.umask(mask)
    assert made.parent == tmp_path / "operators"
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert compilation._compiled() == made
    for path in (made, made.parent):
        before = path.stat().st_mode
        for mode in (0o020, 0o002):
            path.chmod(before | mode)
            with pytest.raises(compilation.NotCompiled, match=f"other users may write to {path}"):
                compilation._compiled()
        path.chmod(before)
    monkeypatch.setattr(compilation.os, "geteuid", lambda: made.stat().st_uid + 1)
    if made.stat().st_uid:
        with pytest.raises(compilation.NotCompiled, match=f"{made.parent} belongs to user"):
            compilation._compiled()
    else:
        os.chown(made, 12345, -1)
        with pytest.raises(compilation.NotCompiled, match=f"{made} belongs to user 12345"):
            compilation._compiled()


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [("no-such-compiler", "there is no C compiler named no-such-compiler"), ("false", "does not compile them")],
)
def test_without_a_compiler_the_environments_choice_warns_and_an_explicit_one_is_refused(
    compiler: str, reason: str, tmp_path: Path
) -> None:
    program = f"""
import warnings
import torch
from cyclegan_fast import kernels
x = torch.randn(1, 2, 4, 4)
with warnings.catch_warnings(record=True) as shown:
    warnings.simplefilter("always")
    for _ in range(2):
        assert torch.equal(kernels.instance_norm(x), kernels.instance_norm(x, impl="reference"))
(warning,) = shown
assert "plain operators run on the CPU" in str(warning.message) and {reason!r} in str(warning.message), warning
try:
    kernels.instance_norm(x, impl="c")
except RuntimeError as error:
    assert {reason!r} in str(error), error
    print("refused")
"""
    environment = {
        "CYCLEGAN_FAST_IMPL": "c",
        "CC": compiler,
        compilation.CACHE_VARIABLE: str(tmp_path),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_the_mark_of_a_constant_is_that_of_pytorch() -> None:
    @torch.compiler.assume_constant_result
    def constant() -> bool:
        return True

    assert vars(constant) == vars(compilation.is_compiled)


def test_networks_without_values_are_made_without_the_compiler() -> None:
    """Each command that reads a run makes such networks, to compare names and shapes: they took seconds."""
    code = """
import sys, torch
from cyclegan_fast.config.options import Config
from cyclegan_fast.methods.model import Model
with torch.device("meta"):
    Model(Config())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
