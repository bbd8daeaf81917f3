"""Hardware alone shows large tensors, programs that wait for one another, races and graphs."""

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cyclegan_fast.kernels import instance_norm, plans as launch, reflection_pad, residual_block
from cyclegan_fast.kernels.checking.accuracy import relative_error
from cyclegan_fast.kernels.gpus import gpu_of
from cyclegan_fast.kernels.norm.backward import norm_backward
from cyclegan_fast.kernels.norm.forward import norm_forward
from cyclegan_fast.kernels.plans import NormPlan

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no NVIDIA GPU here"),
]

BF16 = torch.bfloat16
GIB = 1 << 30


def needs_memory(gib: int) -> None:
    free, _ = torch.cuda.mem_get_info()
    if free < gib * GIB:
        pytest.skip(f"needs {gib} GiB of free GPU memory, {free / GIB:.0f} are free")


def activations(*shape: int, seed: int = 0, dtype: torch.dtype = BF16) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    x = torch.empty(shape, device="cuda", dtype=dtype).to(memory_format=torch.channels_last)
    return x.normal_(generator=generator)


def test_a_batch_of_more_than_2_to_the_31_elements_equals_its_images_one_by_one() -> None:
    needs_memory(40)
    x = activations(9, 64, 2000, 2000)
    assert x.numel() > 2**31
    plan = launch.norm_rule("forward", (1, 64, 2000, 2000), 1, BF16, gpu_of(x))
    with launch.forcing(plan):
        y = instance_norm(x, activation="relu", pad=1, impl="triton")
        for image in (0, 8):
            assert torch.equal(
                y[image], instance_norm(x[image : image + 1], activation="relu", pad=1, impl="triton")[0]
            )
    padded = reflection_pad(x, 3, impl="triton")
    assert torch.equal(padded[8:], reflection_pad(x[8:], 3, impl="reference"))


def test_an_image_of_more_than_2_to_the_31_elements_is_normalised_and_padded_to_its_last_pixel() -> None:
    needs_memory(60)
    x = activations(1, 64, 5800, 5800)
    assert x.numel() > 2**31
    y, statistics = norm_forward(x, activation="none", negative_slope=0.0, residual=None, pad=1, eps=1e-5)
    plane = x[0, 63].double()
    exact = (plane - plane.mean()) / (plane.var(correction=0) + 1e-5).sqrt()
    assert relative_error(y[0, 63, 1:-1, 1:-1], exact) < 5e-3
    assert torch.equal(y[0, :, -1, 1:-1], y[0, :, -3, 1:-1])
    gradients = norm_backward(y, x, statistics, activation="none", negative_slope=0.0, pad=1)
    assert gradients.dx.isfinite().all()


def cooperative(direction: launch.NormPass, x: Tensor) -> NormPlan:
    n, c, h, w = x.shape
    plan = launch.cooperative_plan(direction, (n, c, h, w), x.dtype, gpu_of(x))
    if plan is None:
        pytest.skip(f"{gpu_of(x).name} does not hold all programs of {tuple(x.shape)} at once")
    return plan


def run_forward(plan: NormPlan, x: Tensor, pad: int) -> list[Tensor]:
    residual = activations(*x.shape, seed=1, dtype=x.dtype)
    with launch.forcing(plan):
        return list(norm_forward(x, activation="leaky_relu", negative_slope=0.2, residual=residual, pad=pad, eps=1e-5))


def run_backward(plan: NormPlan, x: Tensor, pad: int) -> list[Tensor]:
    dy = activations(*x.shape[:2], x.size(2) + 2 * pad, x.size(3) + 2 * pad, seed=2, dtype=x.dtype)
    _, statistics = norm_forward(x, activation="none", negative_slope=0.0, residual=None, pad=0, eps=1e-5)
    options = {"activation": "leaky_relu", "negative_slope": 0.2, "pad": pad, "wants_residual": True, "remake": True}
    with launch.forcing(plan):
        gradients = norm_backward(dy, x, statistics, **options)  # type: ignore[arg-type]  # each of its own type
    assert gradients.d_residual is not None
    assert gradients.remade is not None
    return [gradients.dx, gradients.d_residual, gradients.remade]


@pytest.mark.parametrize("shape", [(1, 256, 64, 64), (2, 128, 128, 128), (1, 64, 256, 256), (3, 24, 70, 50)], ids=str)
@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_programs_that_cooperate_forward_agree_with_two_phases(
    shape: launch.Shape, pad: int, dtype: torch.dtype
) -> None:
    x = activations(*shape, dtype=dtype)
    apart = launch.two_phase_rule("forward", shape, pad, dtype, gpu_of(x))
    assert_agreement(run_forward(cooperative("forward", x), x, pad), run_forward(apart, x, pad))


@pytest.mark.parametrize("shape", [(1, 256, 64, 64), (2, 64, 128, 64), (1, 16, 256, 256), (3, 24, 70, 50)], ids=str)
@pytest.mark.parametrize("pad", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_programs_that_cooperate_backward_agree_with_two_phases(
    shape: launch.Shape, pad: int, dtype: torch.dtype
) -> None:
    x = activations(*shape, dtype=dtype)
    apart = launch.two_phase_rule("backward", shape, pad, dtype, gpu_of(x))
    assert_agreement(run_backward(cooperative("backward", x), x, pad), run_backward(apart, x, pad))


def assert_agreement(together: list[Tensor], apart: list[Tensor]) -> None:
    for one, other in zip(together, apart, strict=True):
        assert relative_error(one, other.double()) < (1e-6 if one.dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize(("direction", "run"), [("forward", run_forward), ("backward", run_backward)])
def test_a_thousand_cooperative_launches_give_the_same_bits(
    direction: launch.NormPass, run: Callable[[NormPlan, Tensor, int], list[Tensor]]
) -> None:
    x = activations(1, 256, 64, 64)
    plan = cooperative(direction, x)
    first = run(plan, x, 1)
    for _ in range(1000):
        assert all(torch.equal(one, other) for one, other in zip(run(plan, x, 1), first, strict=True))


def test_a_captured_graph_replays_the_block_forward_and_backward() -> None:
    x = activations(1, 64, 34, 34).requires_grad_()
    weights = [(activations(64, 64, 3, 3, seed=seed) * 0.05).requires_grad_() for seed in (1, 2)]

    def step() -> list[Tensor]:
        y = residual_block(residual_block(x, *weights, impl="triton"), *weights, pad_out=0, impl="triton")
        return [y, *torch.autograd.grad(y, [x, *weights], torch.ones_like(y))]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            expected = step()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # another test's threads may still pin memory
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    for one, other in zip(captured, expected, strict=True):
        assert relative_error(one, other.double()) < 1e-2


def test_a_block_on_another_stream_than_the_norm_in_front_of_it_has_the_same_gradient() -> None:
    """Autograd runs each backward on its forward's stream; what one frees early, the other would overwrite."""
    x = activations(4, 64, 128, 128).requires_grad_()
    weights = [activations(64, 64, 3, 3, seed=seed) * 0.05 for seed in (1, 2)]
    side = torch.cuda.Stream()

    def gradient(stream: torch.cuda.Stream) -> Tensor:
        buffer = instance_norm(x, activation="relu", pad=1, impl="triton")
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            y = residual_block(buffer, *weights, impl="triton")
        torch.cuda.current_stream().wait_stream(stream)
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
        return dx

    expected = gradient(torch.cuda.current_stream())
    for _ in range(50):
        found = gradient(side)
        with torch.cuda.stream(side):  # takes what the side stream has free
            torch.full((x.numel(),), float("nan"), device="cuda", dtype=x.dtype)
        assert relative_error(found, expected.double()) < 1e-2


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_the_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("compute-sanitizer, of the CUDA toolkit, is not on the path")
    program = """
import torch
from cyclegan_fast.kernels import instance_norm, reflection_pad, residual_block
x = torch.randn(1, 16, 70, 66, device="cuda").requires_grad_()
w = [torch.randn(16, 16, 3, 3, device="cuda", requires_grad=True) for _ in range(2)]
buffer = instance_norm(reflection_pad(x, 3, impl="triton"), activation="relu", pad=1, impl="triton")
y = residual_block(residual_block(buffer, *w, impl="triton"), *w, pad_out=0, impl="triton")
y.square().sum().backward()
torch.cuda.synchronize()
"""
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert result.returncode == 0, result.stdout[-3000:]
